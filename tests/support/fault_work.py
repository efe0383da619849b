"""What is done while a write fails, and what must then be there: the cases of write_faults.py."""

import ctypes
import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from flexrec.recorder import OutputError, Recorder, RecordingError, merge_recordings
from support.forks import doing
from support.known import KINDS, check, record_known

__all__ = ["CASES", "FAULTS", "Case", "Faults", "run_case"]

FAULTS = {
    "ENOSPC": (0, errno.ENOSPC),
    "EIO": (0, errno.EIO),
    "short": (1, 0),  # half is written, and the call says so
    "torn": (2, errno.EIO),  # half is written, and the call fails
}


@dataclass(frozen=True)
class Case:
    """What is done while a call fails.

    Attributes:
        act: does it; it is told when the calls that may fail begin and end.
        kind: of the events.
        start: how many events are in the file before.
        blocks: how many events each flush has.
    """

    act: Callable[["Case", Path], None]
    kind: str
    start: int = 0
    blocks: tuple[int, ...] = ()


class Faults:
    """What the shim is told."""

    def __init__(self, at: int, name: str) -> None:
        shim = ctypes.CDLL(None)
        self._count = ctypes.c_long.in_dll(shim, "fault_count")
        self._at = ctypes.c_long.in_dll(shim, "fault_at")
        self._failed = (ctypes.c_char * 32).in_dll(shim, "fault_name")
        kind, number = FAULTS[name]
        ctypes.c_int.in_dll(shim, "fault_kind").value = kind
        ctypes.c_int.in_dll(shim, "fault_errno").value = number
        self._wanted, self.calls = at, 0

    def __enter__(self) -> None:
        self._count.value, self._at.value = 0, self._wanted

    def __exit__(self, *_: object) -> None:
        self.calls, self._at.value = self._count.value, -1

    @property
    def failed(self) -> str:
        """The name of the call that failed."""
        return self._failed.value.decode()


_armed: Faults  # of this trial


# ---------------------------------------------------------------------- what is done


def _recorder(path: Path, kind: str, mode: Literal["x", "resume"] = "x") -> Recorder:
    return Recorder(
        path, mode=mode, facts=False, flush_seconds=60, reduce=KINDS[kind].reduce or None
    )


def _begin(case: Case, path: Path) -> Recorder:
    """A recorder that has written so many events."""
    rec = _recorder(path, case.kind)
    record_known(rec, case.kind, 0, case.start)
    rec.flush(fsync=True)
    return rec


def _go_on(rec: Recorder, kind: str, count: int, at_least: int) -> None:
    """The disk has recovered: all that was added is there after the next sync, and in the end."""
    path, copy = rec.path, rec.path.with_suffix(".copy")
    shutil.copyfile(path, copy)
    with doing("amid"):
        check(copy, kind, at_least, most=count)
    record_known(rec, kind, count, count + 10)
    rec.flush(fsync=True)
    shutil.copyfile(path, copy)
    with doing("live"):
        check(copy, kind, count + 10, most=count + 10)
    copy.unlink()
    rec.close()
    with doing("closed"):
        check(path, kind, count + 10, most=count + 10)
    litter = [name for name in os.listdir(path.parent) if name.startswith(".")]
    assert not litter, f"left behind: {litter}"


def _record(case: Case, folder: Path) -> None:
    rec, count = _begin(case, folder / "run.h5"), case.start
    with _armed:
        for i, more in enumerate(case.blocks):
            record_known(rec, case.kind, count, count + more)
            count += more
            rec.flush(fsync=i % 3 == 1)
    _go_on(rec, case.kind, count, case.start)


def _close(case: Case, folder: Path) -> None:
    path = folder / "run.h5"
    rec, count = _begin(case, path), case.start + sum(case.blocks)
    record_known(rec, case.kind, case.start, count)
    with _armed:
        rec.close()
    with doing("closed"):
        check(path, case.kind, count, most=count)
    _go_on(_recorder(path, case.kind, "resume"), case.kind, count, count)


def _make(case: Case, folder: Path) -> None:
    path = folder / "run.h5"
    rec = None
    with _armed:
        try:
            rec = _recorder(path, case.kind)
        except (OutputError, RecordingError):
            left = os.listdir(folder)
            assert not left, f"nothing was made, and there is {left}"
    _go_on(rec or _recorder(path, case.kind), case.kind, 0, 0)


def _resume(case: Case, folder: Path, *, closed: bool) -> None:
    path, count, copy = folder / "run.h5", case.start, folder / "copy"
    rec = _begin(case, path)
    shutil.copyfile(path, copy)
    rec.close()
    if not closed:
        os.replace(copy, path)
    copy.unlink(missing_ok=True)
    again = None
    with _armed:
        try:
            again = _recorder(path, case.kind, "resume")
        except (OutputError, RecordingError):
            left = os.listdir(folder)
            assert left == [path.name], f"it was not resumed, and there is {left}"
        else:
            for more in case.blocks:
                record_known(again, case.kind, count, count + more)
                count += more
                again.flush()
    with doing("read"):
        check(path, case.kind, case.start, most=count)
    _go_on(again or _recorder(path, case.kind, "resume"), case.kind, count, case.start)


def _merge(case: Case, folder: Path) -> None:
    paths = [folder / "run-0.h5", folder / "run-1.h5"]
    for kind, path in zip(("even", "odd"), paths, strict=True):
        with _recorder(path, kind) as rec:
            record_known(rec, kind, 0, case.start)
    path = folder / "run.h5"
    with _armed:
        try:
            merge_recordings(paths, path)
        except (OutputError, RecordingError):
            left = sorted(os.listdir(folder))
            assert left == ["run-0.h5", "run-1.h5"], f"nothing was made, and there is {left}"
    if not path.exists():
        merge_recordings(paths, path)
    for kind, source in (("even", paths[0]), ("odd", paths[1])):
        check(source, kind, case.start, most=case.start)
    check(path, "merged", 2 * case.start, most=2 * case.start)


_SMALL = (13, 40, 7, 1, 30)
CASES: dict[str, Case] = {
    "scalars": Case(_record, "scalars", 0, _SMALL),
    # Blocks that begin the next chunk of the file's: of events, of numbers, of arrays, of names.
    "events": Case(_record, "scalars", 32740, (20, 20, 5)),
    "events anew": Case(_record, "scalars", 32768, (20, 5)),
    "values": Case(_record, "wide", 320, (5, 5, 5)),
    "blobs": Case(_record, "big", 20, (2, 2, 2, 2)),
    "mixed": Case(_record, "mixed", 0, _SMALL),
    "arrays": Case(_record, "arrays", 0, _SMALL),
    "keys": Case(_record, "keys", 0, (2, 1, 3, 1, 2, 1)),
    "names": Case(_record, "keys", 60, (10, 10, 10, 10, 10)),
    "reduced": Case(_record, "reduced", 0, _SMALL),
    "make": Case(_make, "scalars"),
    "resume": Case(partial(_resume, closed=False), "mixed", 150, (20, 5)),
    "resume closed": Case(partial(_resume, closed=True), "arrays", 60, (20, 5)),
    "close": Case(_close, "mixed", 150, (40,)),
    "close keys": Case(_close, "keys", 5, (5,)),
    "merge": Case(_merge, "merged", 40),
}
"""`merge` has `start` events in each of two recordings."""


def run_case(name: str, faults: Faults, folder: Path) -> None:
    """Do what a case does, in an empty folder; raise what is not as it must be."""
    global _armed
    _armed = faults
    CASES[name].act(CASES[name], folder)
