"""verify and repair: what they return, and that their child finds flexrec where we have it.

What they do with damage and kills is tried in tests/e2e/test_crash.py.
"""

import errno
import gzip
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import flexrec
from flexrec.cli.maintenance import repaired_text, verdict_text
from flexrec.recorder import DamagedError, OutputError, Recorder, Recording, RecordingError
from flexrec.recorder.maintenance import repair as repairing
from flexrec.recorder.maintenance.repair import Repaired, Verdict, repair, verify
from support.commands import fails
from support.commands import flexrec as command
from support.crashing import crash
from support.recorders import recorder


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    rec = Recorder(tmp_path / "run.h5", facts=False)
    for i in range(10):
        rec.add(loss=i)
        rec.step()
    crash(rec)
    return rec.path


def test_what_they_return(killed: Path) -> None:
    assert verify(killed) == Verdict("unfinished", events=10, last_step=9)
    assert repair(killed) == Repaired(killed, True, 10)
    assert verify(killed) == Verdict("whole", events=10)
    assert repair(killed) == Repaired(killed, False, 10)


@pytest.mark.parametrize(("name", "text"), [("config", b"{"), ("facts", b"[]")])
def test_config_and_facts_that_cannot_be_parsed_are_damage(
    name: str, text: bytes, tmp_path: Path
) -> None:
    """As such a file cannot be opened, it is not whole."""
    path = tmp_path / "run.h5"
    recorder(path, config={"lr": 1}).close()
    with h5py.File(path, "r+", locking=False) as file:
        del file[name]
        file[name] = np.frombuffer(text, "u1")
    with pytest.raises(DamagedError):
        Recording(path)
    verdict = verify(path)
    assert verdict.state == "damaged"
    assert name in verdict.fault
    with pytest.raises(DamagedError, match=name):
        repair(path)


@pytest.mark.parametrize(
    ("name", "was", "now"), [("config", b'{"', b"!!"), ("facts", b"null", b'"12"')]
)
def test_texts_without_a_checksum_are_left_out_if_they_cannot_be_parsed(
    name: str, was: bytes, now: bytes, tmp_path: Path
) -> None:
    """In a live file of version 1: the closed copy can be opened."""
    path = tmp_path / "run.h5"
    packed = Path(__file__).parents[2] / "data" / "live_version_1.h5.gz"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    with path.open("r+b") as file, h5py.File(path, "r", locking=False, swmr=True) as read:
        file.seek(read[name].id.get_offset())
        assert file.read(len(was)) == was
        file.seek(-len(was), os.SEEK_CUR)
        file.write(now)
    assert verify(path).state == "damaged"
    repaired = repair(path)
    assert repaired.damage == f"its {name} is not as it was written"
    assert repaired.original is not None
    with Recording(path) as run:
        assert getattr(run, name) is None
        assert run.event_count == repaired.events == 300


def test_changed_config_and_facts_are_repaired_too(tmp_path: Path) -> None:
    """They lie in the schema of a live file, and elsewhere in a closed one."""
    rec = Recorder(tmp_path / "run.h5", config={"lr": 1}, facts="no patch")
    rec.add(loss=1.0)
    rec.config.update(lr=2)
    rec.describe({"net": {}})
    crash(rec)
    assert repair(rec.path) == Repaired(rec.path, True, 1)
    with Recording(rec.path) as run:
        assert (run.config, run.models) == ({"lr": 2}, {"net": {}})


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (Verdict("whole", events=1), "1 event"),
        (Verdict("damaged", "loss: it is damaged"), "loss: it is damaged"),
        (
            Verdict("unfinished", events=5, last_step=2, left_out=1, is_torn=True),
            "5 events, up to step 2; 1 after the last sync were torn by a loss of power; "
            "if its run is over, flexrec repair closes it",
        ),
    ],
)
def test_the_command_says_it_in_a_sentence(verdict: Verdict, text: str) -> None:
    assert verdict_text(verdict) == text


def test_the_command_says_what_was_repaired() -> None:
    path = Path("run.h5")
    assert repaired_text(Repaired(path, False)) == "run.h5 is whole: nothing to repair"
    done = Repaired(path, True, 1200, 3, "event 1 is bent", Path("run.original.h5"))
    assert repaired_text(done) == (
        "run.h5 is closed now: 1,200 events; 3 that were not whole are left out; event 1 is bent; "
        "the original is run.original.h5"
    )


@pytest.mark.parametrize("name", ["verify", "repair"])
def test_a_folder_is_told_as_one(tmp_path: Path, name: str) -> None:
    work: Callable[[Path], object] = verify if name == "verify" else repair
    with pytest.raises(RecordingError, match=r"is a folder; give the path of a recording"):
        work(tmp_path)
    assert fails(name, tmp_path) == f"{tmp_path} is a folder; give the path of a recording"
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- the child


def without_flexrec() -> str:
    """Code that has flexrec by its sys.path alone, as its first argument says where."""
    return textwrap.dedent("""
        import os, sys
        where, run = sys.argv[1:]
        there = [path for path in sys.path if os.path.isdir(os.path.join(path, "flexrec"))]
        sys.path[:] = [where, *(path for path in sys.path if path not in there)]
        from flexrec.recorder.maintenance import repair
        assert repair.__file__.startswith(where), repair.__file__
        print(repair.verify(run), repair.repair(run))
    """)


def run_with(where: Path, run: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", without_flexrec(), where, run],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=run.parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_the_child_finds_flexrec_where_we_do(killed: Path, tmp_path: Path, kind: str) -> None:
    home = Path(str(flexrec.__file__)).parent
    where = tmp_path / "elsewhere"
    if kind == "zip":
        where = tmp_path / "flexrec.zip"
        with zipfile.ZipFile(where, "w") as archive:
            for floor in ("", "recorder"):
                for file in (home / floor).rglob("*.py") if floor else home.glob("*.py"):
                    archive.write(file.resolve(), f"flexrec/{file.relative_to(home)}")
    else:
        where.mkdir()
        (where / "flexrec").symlink_to(home)
    said = run_with(where, killed)
    assert said.startswith("Verdict(state='unfinished'")
    assert "is_changed=True" in said


def test_a_child_that_cannot_begin_is_no_damage(killed: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(repairing, "_CHILD", "import no_such_module")
    with pytest.raises(RecordingError, match="No module named 'no_such_module'") as caught:
        verify(killed)
    assert not isinstance(caught.value, DamagedError)


def test_a_child_that_is_killed_is_no_damage(killed: Path, monkeypatch: Any) -> None:
    kill = f"import os; os.kill(os.getpid(), {signal.SIGKILL:d})"
    monkeypatch.setattr(repairing, "_CHILD", kill)
    with pytest.raises(RecordingError, match="the reader got SIGKILL") as caught:
        verify(killed)
    assert not isinstance(caught.value, DamagedError)
    monkeypatch.setattr(repairing, "_CHILD", kill.replace("9", f"{signal.SIGSEGV:d}"))
    assert verify(killed).state == "damaged"


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        ("MemoryError('no room')", MemoryError, "no room"),
        (f"OSError({errno.EMFILE}, 'x')", RecordingError, "cannot be read: Too many open files"),
    ],
)
def test_what_comes_up_in_the_child_is_what_it_is(
    killed: Path, raised: str, kind: type[Exception], message: str, monkeypatch: Any
) -> None:
    patched(monkeypatch, f"def fail(*_): raise {raised}\nimport os; os.preadv = fail")
    with pytest.raises(kind, match=message) as caught:
        verify(killed)
    assert not isinstance(caught.value, DamagedError)


def test_a_bug_in_the_child_is_none_of_the_files(killed: Path, monkeypatch: Any) -> None:
    patched(monkeypatch, "import flexrec.recorder.maintenance.repair as r; r._read_all = None")
    with pytest.raises(RecordingError, match=r"was not read.*TypeError: 'NoneType'") as caught:
        verify(killed)
    assert not isinstance(caught.value, DamagedError)


def test_the_time_limit_goes_by_the_work(killed: Path, monkeypatch: Any) -> None:
    given: list[float] = []
    within = repairing._within

    def noted(limit: Any, *rest: Any) -> Any:
        given.append(limit.seconds)
        return within(limit, *rest)

    monkeypatch.setattr(repairing, "_within", noted)
    assert verify(killed).state == "unfinished"
    assert given[0] < given[1] == given[2], "more, once the child said how many keys and rows"
    given.clear()
    assert verify(killed, seconds=50).state == "unfinished"
    assert set(given) == {50}
    limit = repairing._Limit(killed, None)
    before = limit.seconds
    assert limit.extend(b'{"work": [6233, 1000000]}')
    assert limit.seconds > before + 100
    assert not limit.extend(b'{"error": "DamagedError", "message": ""}')
    assert not limit.extend(b"")


def test_what_takes_too_long_is_ended(killed: Path, monkeypatch: Any) -> None:
    patched(
        monkeypatch,
        "import time, flexrec.recorder.maintenance.repair as r\n"
        "r._read_all = lambda *_: time.sleep(99)",
    )
    assert "did not end within 3 s" in verify(killed, seconds=3).fault


def patched(monkeypatch: Any, code: str) -> None:
    """Have the child run some code before it begins."""
    child = repairing._CHILD.replace("; child(", f"\n{code}\nchild(")
    monkeypatch.setattr(repairing, "_CHILD", child)


def test_a_full_disk_is_told_as_one(killed: Path, monkeypatch: Any) -> None:
    before = killed.read_bytes()
    fail = f"def fail(*_): raise OSError({errno.ENOSPC}, 'No space left on device')\n"
    patched(
        monkeypatch, f"{fail}import flexrec.recorder.maintenance.repair as r; r.write_closed = fail"
    )
    with pytest.raises(OutputError, match="No space left on device"):
        repair(killed)
    assert killed.read_bytes() == before
    assert command("verify", killed, code=1)[0].startswith(f"{killed}: unfinished")


def test_no_temporary_folder_is_needed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> str:
        raise FileNotFoundError("no usable temporary directory")

    with recorder(path) as rec:
        rec.add(a=1)
    monkeypatch.setattr(tempfile, "gettempdir", full)
    assert verify(path).state == "whole"
