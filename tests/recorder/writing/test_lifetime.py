"""Recorders that nobody closes: out of reach, copied, pickled, forked."""

import builtins
import copy
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from flexrec.recorder import Recorder, Recording, RecordingError
from flexrec.recorder.writing import lifetime
from support.recorders import recorder


def values(path: Path) -> list[float]:
    with Recording(path) as run:
        assert run.complete
        found: list[float] = run["a"].value.tolist()
        return found


# ---------------------------------------------------------------------- out of reach


def fails(path: Path) -> None:
    rec = recorder(path)
    rec.add(a=1)
    raise ZeroDivisionError


def in_a_cycle(path: Path) -> None:
    trainer: dict[str, Any] = {"rec": recorder(path)}
    trainer["itself"] = trainer
    trainer["rec"].add(a=1)


@pytest.mark.parametrize("leaves", [fails, in_a_cycle])
def test_the_path_of_a_recorder_that_nothing_can_reach_is_free(
    path: Path, leaves: Callable[[Path], None]
) -> None:
    gc.disable()
    try:
        leaves(path)
    except ZeroDivisionError:
        pass
    finally:
        gc.enable()
    with recorder(path, mode="resume") as rec:
        rec.add(a=2)
    assert values(path) == [1, 2]


def test_the_writer_keeps_no_recorder_alive_to_see_whether_it_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the last reference may be the writer's, just when the path is wanted again."""
    rec = recorder(path)
    rec.add(a=1)
    flusher = rec._flusher
    monkeypatch.setattr(flusher, "_owner", lambda: pytest.fail("a reference"))
    flusher.let_go()
    assert not flusher.has_ended
    del rec
    with recorder(path, mode="resume") as again:
        again.add(a=2)
    assert values(path) == [1, 2]


def test_a_recorder_that_nothing_can_reach_is_closed_by_itself(path: Path) -> None:
    rec = recorder(path)
    rec.add(a=1)
    writer = rec._flusher._thread
    del rec
    writer.join(60)
    assert not writer.is_alive()
    assert os.listdir(path.parent) == ["run.h5"]
    assert values(path) == [1]


def test_what_cannot_be_written_of_it_is_told(
    path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    rec = recorder(path, on_error="raise")
    rec.add(a=1)
    monkeypatch.setattr(rec._flusher._file, "write", fail)
    writer = rec._flusher._thread
    del rec
    writer.join(60)
    assert "1 events could not be written and are lost" in capfd.readouterr().err


def test_exit_holds_no_recorder_and_closes_all(path: Path) -> None:
    code = (
        "import sys, gc; from flexrec.recorder import Recorder\n"
        "one = Recorder(sys.argv[1], flush_seconds=60); one.add(a=1)\n"
        "Recorder(sys.argv[2], flush_seconds=60).add(a=2)\n"
    )
    other = path.with_name("other.h5")
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(path), str(other)], check=True)
    assert values(path) == [1]
    assert values(other) == [2]


def test_a_recorder_that_has_ended_is_not_listed(path: Path) -> None:
    before = len(lifetime._running)
    rec = recorder(path)
    assert len(lifetime._running) == before + 1
    rec.close()
    rec.close()
    assert len(lifetime._running) == before


def test_one_that_can_be_reached_is_left_and_a_notebook_is_told_what_to_do(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorder(path) as rec:
        monkeypatch.setattr(builtins, "__IPYTHON__", True, raising=False)
        with pytest.raises(RecordingError, match=r"run rec.close\(\) before the cell"):
            recorder(path, mode="w")
        rec.add(a=1)
    assert values(path) == [1]


def _leaves_open(path: Path) -> None:
    global _held
    _held = recorder(path)
    _held.add(a=1)


def _fails_with_one_open(path: Path) -> None:
    _leaves_open(path)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the child's traceback
    raise ZeroDivisionError


_held: Recorder | None = None


@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize(("work", "code"), [(_leaves_open, 0), (_fails_with_one_open, 1)])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_of_multiprocessing_closes_what_is_open_at_its_end(
    path: Path, how: Any, work: Callable[[Path], None], code: int
) -> None:
    with recorder(path.with_name("parent.h5")):
        child = multiprocessing.get_context(how).Process(target=work, args=(path,))
        child.start()
        child.join()
    assert child.exitcode == code
    assert values(path) == [1]


# ---------------------------------------------------------------------- copies


def pickled(rec: Recorder) -> Recorder:
    copied: Recorder = pickle.loads(pickle.dumps(rec))  # noqa: S301 - our own
    return copied


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_records_nothing(path: Path, copied: Callable[[Recorder], Recorder]) -> None:
    with recorder(path, config={"lr": 0.1}) as rec:
        rec.add(a=1)
        rec.step()
        rec.add(a=2, b=1)
        other = copied(rec)
        with other:
            other.add(a=3)
            other.add({"a": 4}, step=7)
            other.log()
            other.reset()
            other.step()
            other.flush(fsync=True)
            other.load_state_dict(other.state_dict())
            other.config.update(lr=0.2)
        assert other.current_step == 8
        assert other.path == path
        assert dict(copied(other).config) == {"lr": 0.2}
        assert "records nothing" in repr(other)
        rec.add(a=5)
    assert values(path) == [1, 2, 5]
    with Recording(path) as run:
        assert run.config == {"lr": 0.1}


def test_a_copys_state_is_that_of_the_recorder_as_it_was_copied(path: Path) -> None:
    with recorder(path) as rec:
        rec.add(a=1)
        rec.step()
        rec.log()
        copied = copy.deepcopy({"rec": rec})["rec"]
        rec.add(a=2)
        rec.step()
    with pytest.raises(RecordingError, match="is closed"):
        rec.state_dict()
    with recorder(path, mode="resume") as rec:
        rec.load_state_dict(copied.state_dict())
        assert rec.current_step == 1
        rec.add(a=3)
    assert values(path) == [1, 3]


def test_a_closed_recorder_can_be_copied(path: Path) -> None:
    rec = recorder(path)
    rec.close()
    copy.deepcopy(rec).add(a=1)
    with Recording(path) as run:
        assert len(run) == 0


def test_what_holds_a_recorder_can_be_spawned(path: Path) -> None:
    code = (
        "import multiprocessing, sys\n"
        "from flexrec.recorder import Recorder\n"
        "def work(rec):\n"
        "    rec.add(a=2); rec.step(); rec.log(); rec.close()\n"
        "if __name__ == '__main__':\n"
        "    with Recorder(sys.argv[1]) as rec:\n"
        "        rec.add(a=1)\n"
        "        child = multiprocessing.get_context('spawn').Process(target=work, args=(rec,))\n"
        "        child.start(); child.join(); sys.exit(child.exitcode)\n"
    )
    script = path.with_name("script.py")
    script.write_text(code)
    subprocess.run([sys.executable, str(script), str(path)], check=True)
    assert values(path) == [1]


# ---------------------------------------------------------------------- forks


def in_fork(work: Callable[[], bool]) -> bool:
    """Whether work, done in a forked child, is true."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("flushed", [True, False])
def test_hdf5_in_a_forked_child_has_forgotten_the_file(path: Path, flushed: bool) -> None:
    """Else another file that gets the inode's number would be taken for it."""
    own = path.with_name("own.h5")

    def child() -> bool:
        with h5py.File(path, "w") as file:  # refused of what HDF5 has open
            file["x"] = 1
        with recorder(own) as rec:
            rec.add(a=7)
        return True

    def parent() -> bool:
        rec = recorder(path)
        for i in range(100):
            rec.add({f"a{i}": 1.0, "a": i})
        rec.flush()
        for i in range(100):
            rec.add({f"b{i}": 1.0})
        if flushed:
            rec.flush()
        return in_fork(child)

    assert in_fork(parent)  # whose file is spoilt
    assert values(own) == [7]


def test_a_fork_amid_writes_leaves_the_parents_file_alone(path: Path) -> None:
    rec = Recorder(path, facts=False, flush_seconds=0.001)
    rec.add(a=0)
    done = threading.Event()

    def adds() -> None:
        for i in range(1, 400):
            rec.add({"a": i, f"k{i}": 1.0}, step=i)
        done.set()

    thread = threading.Thread(target=adds)
    thread.start()
    forks = 0

    def closes() -> bool:
        rec.add(a=-1)
        rec.close()
        return True

    while not done.is_set() or not forks:
        assert in_fork(closes)
        forks += 1
    thread.join()
    rec.close()
    assert values(path) == list(range(400))
