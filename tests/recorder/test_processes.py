"""Who may write, and how a writer may end: processes, threads, locks, and what happens to files."""

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flexrec.recorder import ExistsError, Recorder, Recording, RecordingError, merge_recordings
from flexrec.recorder.errors import OutputError
from flexrec.recorder.files import lock
from flexrec.recorder.files.lock import PathLock, lock_file
from flexrec.recorder.maintenance.repair import repair
from support.recorders import recorder


def values(path: Path) -> list[float]:
    with Recording(path) as run:
        found: list[float] = list(run["a"].value)
        return found


def python(code: str, *arguments: object, check: int = 0) -> str:
    """Run a program with warnings as errors; its standard output and error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == check, done.stderr
    return done.stdout + done.stderr


# ---------------------------------------------------------------------- one recorder for a path


@pytest.mark.parametrize("mode", ["x", "w", "resume"])
def test_a_second_recorder_is_refused_and_told_whose_it_is(path: Path, mode: Any) -> None:
    with recorder(path) as rec:
        rec.add(a=1)
        who = f"being recorded by process {os.getpid()} on {socket.gethostname()}"
        ours = "another Recorder of this process; call its close\\(\\) first"
        with pytest.raises(RecordingError, match=ours):
            recorder(path, mode=mode)
        code = "import sys; from flexrec.recorder import Recorder; Recorder(sys.argv[1], mode='w')"
        assert who in python(code, path, check=1)
        with pytest.raises(RecordingError, match=ours):
            recorder(path.parent / "." / "x" / ".." / "run.h5", mode=mode)
        rec.add(a=2)
    assert values(path) == [1, 2]
    assert os.listdir(path.parent) == ["run.h5"], "the lock is gone"


def test_a_dead_owner_bars_nobody(path: Path) -> None:
    code = (
        "import os, sys; from flexrec.recorder import Recorder\n"
        "r = Recorder(sys.argv[1]); r.add(a=1); r.flush(); os._exit(0)"
    )
    python(code, path)
    assert lock_file(path).exists()
    assert values(path) == [1], "reading needs no lock"
    with recorder(path, mode="resume") as rec:
        rec.add(a=2)
    assert values(path) == [1, 2]
    assert os.listdir(path.parent) == ["run.h5"]


EXEC = """
import fcntl, os, sys
from pathlib import Path
from flexrec.recorder import Recorder
from flexrec.recorder.files.lock import seems_held

mode, locks, path = *sys.argv[1:3], Path(sys.argv[3])
if locks == "no locks":
    def flock(*_):
        raise OSError(37, "No locks available")
    fcntl.flock = flock
assert not seems_held(path), "another program has its process by now"
rec = Recorder(path, mode=mode)
rec.add(a=1)
rec.flush()
assert seems_held(path)
if mode == "x":
    os.execv(sys.executable, [sys.executable, "-c", os.environ["CODE"], "resume", locks, path])
rec.close()
"""


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_a_process_that_becomes_another_program_records_no_more(
    path: Path, locks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its number and its start time, as a script that starts itself anew does."""
    monkeypatch.setenv("CODE", EXEC)
    python(EXEC, "x", locks, path)
    assert values(path) == [1, 1]
    assert os.listdir(path.parent) == ["run.h5"]


def test_a_program_that_is_started_gets_no_descriptor_of_the_recording(path: Path) -> None:
    with recorder(path) as rec:
        rec.add(a=1)
        code = "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in range(3, 64)])"
        code = code.replace("]", " if os.path.exists(f'/proc/self/fd/{n}')]")
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True, close_fds=False)
        assert str(path.parent) not in done.stdout


def test_a_refused_recorder_leaves_no_lock(path: Path) -> None:
    recorder(path).close()
    with pytest.raises(ExistsError, match="exists already"):
        recorder(path)
    assert os.listdir(path.parent) == ["run.h5"]


OWNERS = [
    (
        {"pid": os.getpid(), "host": socket.gethostname(), "started": "me"},
        "another Recorder of this process; call its close",
    ),
    ({"pid": 2**22 + 1, "host": socket.gethostname(), "started": "1"}, None),
    ({"pid": os.getpid(), "host": socket.gethostname(), "started": "1"}, None),
    ({"pid": 1, "host": "elsewhere", "started": "1"}, r"remove .*\.run\.h5\.lock"),
    ('{"pid": 12, "sta', None),
    ("\0\0\0\0", None),  # of a loss of power
    ("\x10\u0085\x0f{}", None),
    ("", None),
]


@pytest.mark.parametrize(("owner", "refusal"), OWNERS)
def test_where_there_are_no_locks_the_owner_decides(
    path: Path, owner: Any, refusal: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if isinstance(owner, dict) and owner["started"] == "me":
        owner = {**owner, "started": lock._started(os.getpid())}
    lock_file(path).write_text(owner if isinstance(owner, str) else json.dumps(owner))
    monkeypatch.setattr(fcntl, "flock", no_locks)
    if refusal is None:
        PathLock(path).release()
        assert not lock_file(path).exists()
    else:
        with lock_file(path).open(), pytest.raises(RecordingError, match=refusal):
            PathLock(path)


@pytest.mark.parametrize("pid", [os.getppid(), 2**22 + 1, -1, "1", None])
def test_without_locks_and_without_proc_a_running_owner_decides(
    path: Path, pid: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, with a file system that has no locks."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(lock, "_started", lambda _: None)
    owner = {"pid": pid, "started": None, "host": socket.gethostname()}
    lock_file(path).write_text(json.dumps(owner))
    if pid == os.getppid():
        with pytest.raises(RecordingError, match=f"by process {pid}"):
            PathLock(path)
    else:
        PathLock(path).release()


NOT_LOCKS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "symlink": (lambda lock, other: lock.symlink_to(other), "a link"),
    "link to nowhere": (lambda lock, other: lock.symlink_to(other.with_name("no")), "a link"),
    "hard link": (lambda lock, other: os.link(other, lock), "a file that has another name too"),
    "pipe": (lambda lock, _: os.mkfifo(lock), "a pipe"),
    "folder": (lambda lock, _: lock.mkdir(), "a folder"),
    "text": (lambda lock, _: lock.write_text("mine"), "a file with something else in it"),
    "JSON": (lambda lock, _: lock.write_text('{"a": 1}'), "a file with something else in it"),
}


@pytest.mark.parametrize("name", NOT_LOCKS)
def test_what_has_the_lock_files_name_and_is_none_is_left_as_it_is(path: Path, name: str) -> None:
    make, kind = NOT_LOCKS[name]
    other = path.with_name("precious.txt")
    other.write_text("precious")
    recorder(path.with_name("old.h5")).close()
    shutil.copy(path.with_name("old.h5"), path)
    make(lock_file(path), other)
    before = {each.name: each.lstat().st_ino for each in path.parent.iterdir()}
    descriptors = len(os.listdir("/proc/self/fd"))
    for use in (
        lambda: recorder(path, mode="w"),
        lambda: recorder(path, mode="resume"),
        lambda: repair(path),
        lambda: merge_recordings([path.with_name("old.h5")], path, overwrite=True),
    ):
        with pytest.raises(RecordingError, match=rf"\.run\.h5\.lock is {kind}, where .* move it"):
            use()
    assert {each.name: each.lstat().st_ino for each in path.parent.iterdir()} == before
    assert other.read_text() == "precious"
    if name in ("text", "JSON"):
        assert lock_file(path).read_text() in ("mine", '{"a": 1}')
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_lock_whose_owner_cannot_be_written_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may be so full, or broken, that the file cannot even be emptied."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    descriptors = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", fail)
        patched.setattr(os, "write", fail)
        lock = PathLock(path)
    with pytest.raises(RecordingError, match="by another process"):
        PathLock(path)
    lock.release()
    PathLock(path).release()
    assert not lock_file(path).exists()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_an_interrupt_amid_taking_the_lock_leaves_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    descriptors = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "ftruncate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        PathLock(path)
    assert not lock_file(path).exists()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_in_a_folder_that_keeps_its_files_the_cause_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `chattr +a`: files are made there, and none is removed or renamed."""

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patched:
        for name in ("unlink", "rename", "replace", "link"):
            patched.setattr(os, name, fail)
        with pytest.raises(OutputError, match=r"cannot create .*: Operation not permitted"):
            recorder(path)
    assert lock_file(path).exists()
    recorder(path).close()
    assert os.listdir(path.parent) == ["run.h5"]


@pytest.mark.parametrize("made", [False, True])
def test_where_no_lock_can_be_made_the_folder_is_named(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "no" / "such"
    if made:
        folder.parent.write_text("a file where the folder should be")
    recorder(tmp_path / "old.h5").close()
    uses: list[Callable[[], object]] = [
        lambda: merge_recordings([tmp_path / "old.h5"], folder / "run.h5")
    ]
    uses += [lambda: recorder(folder / "run.h5")] if made else []
    for use in uses:
        with pytest.raises(OutputError, match="cannot") as told:
            use()
        assert str(folder / "run.h5") in str(told.value)
        assert str(told.value).endswith(f": there is no folder {folder}") or made
        assert ".lock" not in str(told.value)


def test_locks_that_race_have_one_owner(path: Path) -> None:
    owners, most, guard = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal owners, most
        for _ in range(200):
            try:
                lock = PathLock(path)
            except RecordingError:
                continue
            with guard:
                owners += 1
                most = max(most, owners)
            with guard:
                owners -= 1
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


# ---------------------------------------------------------------------- forks, spawns, ends


def test_children_are_forked_while_the_writer_writes(path: Path) -> None:
    code = (
        "import os, sys, warnings; from flexrec.recorder import Recorder\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "r = Recorder(sys.argv[1], facts=False, flush_seconds=0.001)\n"
        "children = []\n"
        "for i in range(3000):\n"
        "    r.add(a=i, step=i)\n"
        "    if i % 100 == 0:\n"
        "        child = os.fork()\n"
        "        if child == 0:\n"
        "            r.add(a=-1); r.flush(); r.close(); sys.exit(0)\n"
        "        children.append(child)\n"
        "assert all(os.waitpid(child, 0)[1] == 0 for child in children)\n"
        "r.close()\n"
    )
    python(code, path)
    assert values(path) == list(range(3000))


def test_a_child_of_a_closed_recorder_keeps_its_files(path: Path, tmp_path: Path) -> None:
    rec = recorder(path)
    rec.close()
    with (tmp_path / "other").open("w+b", buffering=0) as other:  # has the recording's number
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os.write(other.fileno(), b"from the child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert (tmp_path / "other").read_bytes() == b"from the child"


def test_a_forked_child_may_record_elsewhere_and_outlive_the_parents_lock(path: Path) -> None:
    rec = recorder(path)
    (reading, writing), (hearing, telling) = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            with recorder(path.with_name("child.h5")) as own:
                own.add(a=1)
            os.write(telling, b"x")
            os.read(reading, 1)
            status = 0
        finally:
            os._exit(status)
    rec.add(a=2)
    os.read(hearing, 1)
    rec.close()
    recorder(path, mode="resume").close()
    os.write(writing, b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert values(path.with_name("child.h5")) == [1]
    assert values(path) == [2]


def test_a_dataloader_with_workers(path: Path) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with recorder(path) as rec:
            loader = torch.utils.data.DataLoader(range(20), num_workers=2)
            for x in loader:
                rec.add(a=x.item())
                rec.flush()
    assert values(path) == list(range(20))


def _record_in_child(path: str) -> None:
    with Recorder(path, facts=False) as rec:
        rec.add(a=7)


def test_a_spawned_process_records(path: Path) -> None:
    with recorder(path.with_name("parent.h5")):
        child = multiprocessing.get_context("spawn").Process(
            target=_record_in_child, args=(str(path),)
        )
        child.start()
        child.join()
    assert child.exitcode == 0
    assert values(path) == [7]


def test_an_exception_in_the_loop_closes(path: Path) -> None:
    def train() -> None:
        with recorder(path) as rec:
            rec.add(a=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    with Recording(path) as run:
        assert run.complete
    assert values(path) == [1]


def test_an_uncaught_exception_without_with_closes_too(path: Path) -> None:
    code = "import sys; from flexrec.recorder import Recorder; Recorder(sys.argv[1]).add(a=1); 1/0"
    assert "ZeroDivisionError" in python(code, path, check=1)
    with Recording(path) as run:
        assert run.complete


def test_os_exit_keeps_what_was_flushed(path: Path) -> None:
    code = (
        "import os, sys; from flexrec.recorder import Recorder\n"
        "r = Recorder(sys.argv[1], flush_seconds=60)\n"
        "r.add(a=1); r.flush(); r.add(a=2); os._exit(0)"
    )
    python(code, path)
    assert values(path) == [1]


def test_a_closed_recorder_says_so(path: Path) -> None:
    rec = recorder(path)
    state = rec.state_dict()
    rec.close()
    calls = (
        lambda: rec.add(a=1),
        rec.log,
        rec.reset,
        rec.step,
        rec.flush,
        rec.state_dict,
        lambda: rec.load_state_dict(state),
    )
    for call in calls:
        with pytest.raises(RecordingError, match="is closed"):
            call()


def test_threads_add_flush_and_close_at_once(path: Path) -> None:
    rec = Recorder(path, facts=False, flush_seconds=0.001)

    def work() -> None:
        for i in range(300):
            rec.add(a=i)
            if i % 50 == 0:
                rec.flush()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    closers = [threading.Thread(target=rec.close) for _ in range(2)]
    for thread in closers:
        thread.start()
    for thread in closers:
        thread.join()
    rec.close()
    assert sorted(values(path)) == sorted(list(range(300)) * 3)


# ---------------------------------------------------------------------- what happens to the file


@pytest.mark.parametrize("proc", [True, False])
def test_a_file_deleted_under_us_is_written_anew(
    path: Path, proc: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not proc:  # as on macOS
        is_dir = Path.is_dir
        monkeypatch.setattr(Path, "is_dir", lambda self: "/proc" not in str(self) and is_dir(self))
    rec = recorder(path)
    rec.add(a=1)
    rec.flush()
    path.unlink()
    rec.add(a=2)
    with pytest.warns(RuntimeWarning, match="was deleted, moved or replaced"):
        rec.flush()
    rec.add(a=3)
    rec.close()
    assert values(path) == [1, 2, 3]


def test_a_file_put_in_our_place_is_left_alone(path: Path) -> None:
    rec = recorder(path)
    rec.add(a=1)
    path.unlink()
    path.write_text("somebody else's")
    with pytest.warns(RuntimeWarning, match="deleted, moved or replaced|is another file now"):
        rec.close()
    assert path.read_text() == "somebody else's"
    assert values(path.with_name(f"run.{os.getpid()}.h5")) == [1]


def test_the_folder_may_change(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    rec = recorder(Path("run.h5"))
    rec.add(a=1)
    monkeypatch.chdir("/")
    rec.close()
    with Recording(path) as run:
        assert run.complete


def test_a_link_to_the_recording_stays_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    real = tmp_path / "big" / "real.h5"
    recorder(real).close()
    path.symlink_to(real)
    with recorder(path, mode="resume") as rec:
        rec.add(a=1)
        with pytest.raises(RecordingError, match="is being recorded"):
            recorder(real, mode="w")
    assert path.is_symlink()
    assert values(real) == [1]


LIMITED = """
import resource, signal, sys
from flexrec.recorder import Recorder, Recording

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
rec = Recorder(sys.argv[1], facts=False, flush_seconds=0.02, on_error=sys.argv[2])
limit(2_400_000)  # a chunk of values, one of events, and no second
try:
    for i in range(40_000):
        rec.add(a=i)
    rec.flush(); rec.add(a=-1); rec.flush()
except BaseException as error:
    print(type(error).__name__, error, flush=True)
    limit(resource.RLIM_INFINITY)
    sys.exit(3)
with Recording(sys.argv[1]) as run:
    there = run["a"].value.tolist()
    assert there == list(range(len(there))) and 0 < len(there) < 40_000
if sys.argv[3] == "freed":
    limit(resource.RLIM_INFINITY)
    rec.add(a=-2)
    rec.flush()
if sys.argv[3] != "exit":
    rec.close()
"""


@pytest.mark.parametrize("end", ["freed", "close", "exit"])
def test_a_file_that_may_not_grow(path: Path, end: str) -> None:
    """A limit on the size of files is a full disk that needs no root."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), "warn", end],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot write") == 1, "told once"
    found = values(path)
    if end == "freed":
        assert found == [*range(40_000), -1, -2]
        assert "lost" not in done.stderr
    else:
        assert found == list(range(len(found)))
        assert "events could not be written and are lost" in done.stderr
    with Recording(path) as run:
        assert run.complete == (end == "freed")


def test_a_file_that_may_not_grow_raises_where_asked(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), "raise", "exit"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "RecordingError cannot write" in done.stdout
    assert "File too large" in done.stdout


def test_warnings_as_errors_do_not_stop_the_writer(path: Path) -> None:
    code = LIMITED.replace('"warn"', "sys.argv[2]")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(path), "warn", "freed"],
        capture_output=True,
        text=True,
        check=False,
    )
    # Whoever speaks first: the thread tells it on stderr, a call of the user's raises it.
    assert "cannot write" in done.stdout + done.stderr
    with Recording(path) as run:
        assert run.complete
    found = [value for value in values(path) if value >= 0]
    assert found == list(range(len(found)))
