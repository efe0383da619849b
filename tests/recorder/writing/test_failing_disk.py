"""Disks that fail: what is lost is said, and nothing is promised that is not on the disk."""

import errno
import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording, RecordingError
from flexrec.recorder.errors import FlexrecError
from flexrec.recorder.writing import event_queue, flusher
from flexrec.recorder.writing.live_file import LiveFile
from flexrec.recorder.writing.opening import create
from support.crashing import build_shim, crash, under_shim
from support.recorders import recorder


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shim(tmp_path_factory.mktemp("shim"))


def record_steps(rec: Recorder, n: int) -> None:
    for _ in range(n):
        rec.add(a=rec.current_step)
        rec.step()


def steps(path: Path, key: str = "a") -> list[int]:
    with Recording(path) as run:
        found: list[int] = run[key].step.tolist()
        return found


@contextmanager
def failing(rec: Recorder, *calls: str) -> Iterator[None]:
    """Have calls of the recorder's file fail as on a broken disk: all writes, by default."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        for call in calls or ("write",):
            patch.setattr(rec._flusher._file, call, fail)
        yield


def is_over(rec: Recorder) -> bool:
    """Whether it is closed for good: the thread, the lock, a second call."""
    rec.close()
    recorder(rec.path, mode="resume").close()
    return not rec._flusher._thread.is_alive()


# ---------------------------------------------------------------------- close


def add_and_fail(rec: Recorder) -> None:
    rec.add(a=1)
    raise ZeroDivisionError


def test_close_raises_where_events_are_lost(path: Path) -> None:
    rec = recorder(path, on_error="raise")
    rec.add(a=1)
    rec.flush()
    rec.add(a=2)
    with failing(rec), pytest.raises(RecordingError, match=r"run.h5: 1 events .* lost \(Input/out"):
        rec.close()
    assert is_over(rec)
    with Recording(path) as run:
        assert run["a"].value.tolist() == [1]


def test_close_says_what_is_lost_and_why_and_not_that_it_goes_on(path: Path) -> None:
    rec = recorder(path)
    rec.add(a=1)
    with failing(rec), pytest.warns(RuntimeWarning) as said:
        rec.close()
    told = [str(warning.message) for warning in said]
    assert told == [f"{path}: 1 events could not be written and are lost (Input/output error)"]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_close_says_nothing_of_a_failure_that_it_made_up_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    rec = recorder(path)
    rec.add(a=1)
    real, fails = getattr(rec._flusher._file, call), iter([True])

    def fail_once(*given: Any) -> Any:
        if next(fails, False):
            raise OSError(errno.EIO, "Input/output error")
        return real(*given)

    monkeypatch.setattr(rec._flusher._file, call, fail_once)
    rec.close()  # a warning would be an error
    with Recording(path) as run:
        assert (run["a"].value.tolist(), run.complete) == ([1], True)


def test_with_raises_at_its_end(path: Path) -> None:
    rec = recorder(path, on_error="raise")
    with failing(rec), pytest.raises(RecordingError, match="1 events could not be written"), rec:
        rec.add(a=1)
    assert is_over(rec)


def test_with_lets_the_exception_that_is_under_way_through(path: Path) -> None:
    rec = recorder(path, on_error="raise")
    with (
        failing(rec),
        pytest.warns(RuntimeWarning, match="1 events could not be written"),
        pytest.raises(ZeroDivisionError),
        rec,
    ):
        add_and_fail(rec)
    assert is_over(rec)


def test_with_adds_a_note_where_warnings_are_errors(path: Path) -> None:
    rec = recorder(path, on_error="raise")
    with failing(rec), pytest.raises(ZeroDivisionError) as caught, rec:
        add_and_fail(rec)
    assert "1 events could not be written" in caught.value.__notes__[0]
    assert is_over(rec)


def test_close_raises_though_a_warning_that_is_an_error_comes_before(path: Path) -> None:
    rec = recorder(path, on_error="raise", reduce={"never": "MSEMeter"})
    rec.add(a=1)
    with failing(rec), pytest.raises(RecordingError, match="1 events could not be written"):
        rec.close()
    assert is_over(rec)


def test_the_interpreters_end_says_what_is_lost(shim: Path, path: Path) -> None:
    done = under_shim(
        shim,
        "import sys; from support.crashing import fail_writes; "
        "from flexrec.recorder import Recorder\n"
        "rec = Recorder(sys.argv[1], facts=False, flush_seconds=60, on_error='raise')\n"
        "rec.add(a=1); fail_writes(28)",
        str(path),
    )
    assert done.returncode == 0
    assert "RecordingError" in done.stderr
    assert "1 events could not be written and are lost (No space left on device)" in done.stderr


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_a_deleted_recording_that_cannot_be_written_anew_is_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch, on_error: Any
) -> None:
    rec = recorder(path, on_error=on_error)
    record_steps(rec, 3)
    rec.flush()
    path.unlink()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(flusher, "close_recording", fail)
    message = "cannot be written: .*No space left.*what was recorded is lost"
    raises = on_error == "raise"
    with (
        pytest.warns(RuntimeWarning, match="was deleted, moved or replaced"),
        pytest.raises(RecordingError, match=message)
        if raises
        else pytest.warns(RuntimeWarning, match=message),
    ):
        rec.close()
    monkeypatch.undo()
    assert is_over(rec)


@pytest.mark.parametrize("is_synced", [True, False])
def test_a_recording_that_is_not_compressed_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch, is_synced: bool
) -> None:
    """That is a warning, unless the live file may not be on the disk either."""
    rec = recorder(path, on_error="raise")
    record_steps(rec, 3)
    rec.flush(fsync=True)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(flusher, "close_recording", fail)
    with (
        nullcontext() if is_synced else failing(rec, "fsync"),
        pytest.warns(RuntimeWarning, match="was not compressed and is kept as it was"),
        nullcontext() if is_synced else pytest.raises(RecordingError, match="may not be on the"),
    ):
        rec.close()
    monkeypatch.undo()
    assert steps(path) == [0, 1, 2]
    assert is_over(rec)


@pytest.mark.parametrize("raises", [True, False])
def test_a_recording_that_another_program_cut_is_lost(path: Path, raises: bool) -> None:
    rec = recorder(path, on_error="raise" if raises else "warn")
    record_steps(rec, 3)
    rec.flush(fsync=True)
    os.truncate(path, 100)
    told = "it was not compressed and is kept as it was: .* is cut short"
    with (
        pytest.raises(RecordingError, match=told)
        if raises
        else pytest.warns(RuntimeWarning, match=told)
    ):
        rec.close()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("room", [3000, 20_000, 60_000])
def test_why_a_recording_was_not_compressed_is_told_in_the_systems_words(
    path: Path, room: int
) -> None:
    """HDF5 says that it could not close the file: "Can't decrement id ref count"."""
    rec = recorder(path)
    for i in range(20_000):
        rec.add(a=float(np.sin(i)))
    rec.flush(fsync=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        raise OSError(errno.EDOM, "an earlier error, which is not the cause")
    except OSError:
        with pytest.warns(RuntimeWarning, match="kept as it was: File too large$"):
            rec.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(steps(path)) == 20_000


def test_a_file_that_could_not_be_written_is_not_compressed_for_the_same_reason(
    shim: Path, path: Path
) -> None:
    """HDF5 says that it "can't destroy cache" when such a file is closed."""
    done = under_shim(
        shim,
        "import sys, warnings; from support.crashing import fail_writes; "
        "from flexrec.recorder import Recorder\n"
        "warnings.simplefilter('always')\n"
        "rec = Recorder(sys.argv[1], facts=False, flush_seconds=60)\n"
        "rec.add(a=1); rec.flush(); rec.add(b=2); fail_writes(28); rec.close()",
        str(path),
    )
    assert done.returncode == 0
    assert "kept as it was: No space left on device\n" in done.stderr
    assert "1 events could not be written and are lost" in done.stderr


def test_a_changed_config_is_tried_once_more_at_close_as_an_event_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = recorder(path, on_error="raise", config={"lr": 1})
    rec.config.update(lr=2)
    write, fails = rec._flusher._file.write, iter([True])

    def fail_once(block: Any) -> Any:
        if next(fails, False):
            raise OSError(errno.EIO, "Input/output error")
        return write(block)

    monkeypatch.setattr(rec._flusher._file, "write", fail_once)
    rec.close()
    with Recording(path) as run:
        assert (run.config, run.complete) == ({"lr": 2}, True)


def test_what_could_not_be_synced_and_then_is_closed_is_not_lost(path: Path) -> None:
    rec = recorder(path, on_error="raise")
    record_steps(rec, 3)
    with failing(rec, "fsync"):
        rec.close()
    with Recording(path) as run:
        assert run.complete
    assert steps(path) == [0, 1, 2]


# ---------------------------------------------------------------------- state_dict

SAVING = """
import json, os, signal, sys, warnings
from support.crashing import fail_writes
from flexrec.recorder import Recorder, RecordingError
path, number, on_error = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rec = Recorder(path, facts=False, flush_seconds=60, on_error=on_error)
def record(n):
    for _ in range(n):
        rec.add(a=rec.current_step)
        rec.step()
record(100)
rec.flush(fsync=True)
fail_writes(number)
record(100)
warnings.simplefilter("always")
try:
    print(json.dumps(rec.state_dict()), flush=True)
except RecordingError as error:
    print(json.dumps(str(error)), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_state_knows_no_more_than_the_disk(shim: Path, path: Path, number: int) -> None:
    done = under_shim(shim, SAVING, str(path), str(number), "warn")
    assert done.returncode == -signal.SIGKILL
    state = json.loads(done.stdout)
    assert (state["step"], state["events"], state["waiting"]) == (200, 100, 100)
    assert "100 events before this checkpoint could not be written to disk" in done.stderr
    with recorder(path, mode="resume") as rec:
        message = "has 100 events, and the checkpoint was made after 200: the last 100 .* missing"
        with pytest.warns(RuntimeWarning, match=message):
            rec.load_state_dict(state)
        record_steps(rec, 2)
    assert steps(path) == [*range(100), 200, 201]


def test_a_state_that_cannot_be_kept_raises(shim: Path, path: Path) -> None:
    done = under_shim(shim, SAVING, str(path), str(errno.EIO), "raise")
    assert "cannot write" in json.loads(done.stdout)


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_what_a_state_counts_is_written_and_synced(path: Path, call: str) -> None:
    rec = recorder(path)
    record_steps(rec, 4)
    assert rec.state_dict()["events"] == 4
    record_steps(rec, 3)
    with failing(rec, call):
        with (
            pytest.warns(RuntimeWarning, match="cannot write .* recording goes on in memory"),
            pytest.warns(
                RuntimeWarning, match="3 events before this checkpoint could not be written"
            ),
        ):
            state = rec.state_dict()
        with pytest.warns(
            RuntimeWarning, match="3 events before this checkpoint could not be written"
        ):
            rec.state_dict()
    assert (state["step"], state["events"], state["waiting"]) == (7, 4, 3)
    record_steps(rec, 3)
    rec.close()  # the disk is back: those that waited are there
    with recorder(path, mode="resume") as rec:
        rec.load_state_dict(state)
        record_steps(rec, 1)
    assert steps(path) == list(range(8))

    path = path.with_name("raises.h5")
    rec = recorder(path, on_error="raise")
    record_steps(rec, 3)
    with failing(rec, call), pytest.raises(RecordingError, match="cannot write"):
        rec.state_dict()
    rec.close()
    assert steps(path) == [0, 1, 2]


def test_one_event_that_never_came_is_said_too(path: Path) -> None:
    rec = recorder(path)
    record_steps(rec, 3)
    rec.flush()
    state = {**rec.state_dict(), "waiting": 1}
    crash(rec)
    with recorder(path, mode="resume") as rec, pytest.warns(RuntimeWarning, match="the last 1 "):
        rec.load_state_dict(state)


# ---------------------------------------------------------------------- short memory


@pytest.mark.filterwarnings("ignore:.*(cannot write|could not be written)")
@pytest.mark.parametrize("own", [True, False], ids=["this state", "another's state"])
@pytest.mark.parametrize("first", [True, False])
def test_a_resume_is_never_dropped(path: Path, own: bool, first: bool) -> None:
    """What it took back does not hold again, whatever is dropped around it."""
    rec = recorder(path, buffer_bytes=1 << 16)
    record_steps(rec, 5)
    state = rec.state_dict()
    record_steps(rec, 5)
    rec.flush()
    with failing(rec):
        if first:
            rec.add(large=np.zeros(1 << 14))
        rec.load_state_dict(state if own else {**state, "created": 1.0})
        rec.add(large=np.zeros(1 << 14))
        rec.flush()
        record_steps(rec, 2)
        rec.flush()
    rec.close()
    assert steps(path) == [0, 1, 2, 3, 4, 5, 6]
    with Recording(path) as run:
        assert run.dropped == 1 + first
        assert run.resumes == 1


@pytest.mark.filterwarnings("ignore:cannot write")
@pytest.mark.parametrize("flushes", [True, False], ids=["flush", "a full buffer"])
def test_when_the_disk_is_back_what_waits_is_written_before_anything_is_dropped(
    path: Path, monkeypatch: pytest.MonkeyPatch, flushes: bool
) -> None:
    monkeypatch.setattr(event_queue, "_PLENTY_BYTES", 1 << 30 if flushes else 1 << 15)
    rec = recorder(path, buffer_bytes=1 << 16)
    with failing(rec):
        rec.add(large=np.full(6000, 1.0))
        rec.flush()
    for i in range(3):
        rec.add(large=np.full(6000, 2.0 + i))
        if flushes:
            rec.flush()
    rec.close()
    with Recording(path) as run:
        assert run.dropped == 0
        assert [large[0] for large in run["large"].value] == [1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore:.*(cannot write|could not be written)")
def test_how_many_were_dropped_is_not_dropped(path: Path) -> None:
    rec = recorder(path, buffer_bytes=1 << 15)
    with failing(rec):
        for _ in range(3):
            rec.add(large=np.zeros(1 << 14))
            rec.flush()
    write, calls = rec._flusher._file.write, iter((True, False))

    def once(block: Any) -> Any:
        if next(calls):
            return write(block)
        raise OSError(errno.EIO, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:  # fails again as it is about to be said
        patch.setattr(rec._flusher._file, "write", once)
        rec.add(a=1)
        rec.flush()
    with failing(rec):
        rec.add(large=np.zeros(1 << 14))
        rec.flush()
    rec.close()
    with Recording(path) as run:
        assert run.dropped == 4


@pytest.mark.filterwarnings("ignore:cannot write")
def test_a_sync_that_was_asked_for_and_failed_is_told_each_time(path: Path) -> None:
    rec = recorder(path)
    with failing(rec):
        record_steps(rec, 2)
        rec.flush()
        for count in (3, 4):
            record_steps(rec, 1)
            message = f"{count} events could not be written to disk: Input/output error"
            with pytest.warns(RuntimeWarning, match=message):
                rec.flush(fsync=True)
    rec.flush(fsync=True)
    rec.close()


@pytest.mark.parametrize("mode", ["w", "resume"])
def test_a_recording_that_cannot_be_begun_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, mode: Literal["w", "resume"]
) -> None:
    """Nor if closing what was begun fails too, as HDF5 writes then."""
    with recorder(path) as rec:
        rec.add(a=1)
    before, close = path.read_bytes(), LiveFile.close

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def closed(file: LiveFile) -> None:
        close(file)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(create, "put_in_place", full)
    monkeypatch.setattr(LiveFile, "close", closed)
    with pytest.raises(FlexrecError, match="No space left"):
        Recorder(path, mode=mode)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before
