"""Trials of writes that fail: each call that changes a file fails once, then the disk recovers.

    python tests/write_faults.py [--most 300] [--cases keys,close] [--faults EIO] [--json]
    python tests/write_faults.py --one keys:12:torn

A case is run once to count its calls, and then once for each of them and each way to fail, in a
fork. What was added before a `flush(fsync=True)` that came after the fault must be in a copy of the
live file, and in the end in the closed one: nothing is missing, and nothing is wrong.
"""

import argparse
import ctypes
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from forks import Found, doing, fault_of, in_forks, quick_folder
from known import KINDS, LostError, check, record_known

from flexrec.recorder import Recorder, RecordingError, merge_recordings

__all__ = ["CASES", "FAULTS", "main"]

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


class _Faults:
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


_armed: _Faults  # of this trial


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
        except RecordingError:
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
        except RecordingError:
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
        except RecordingError:
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


# ---------------------------------------------------------------------- trials


def _try(name: str, call: int, fault: str, base: Path) -> Found:
    """One trial; where no call is to fail, what is found is how many there are."""
    global _armed
    _armed = _Faults(call, fault)
    folder = base / f"{name}-{call}-{fault}"
    folder.mkdir()
    try:
        CASES[name].act(CASES[name], folder)
        if call >= 0 and not _armed.failed:
            raise LostError("no call failed: the trial is at fault")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        kind, what = fault_of(error)
        return kind, f"{_armed.failed}: {what}"
    finally:
        shutil.rmtree(folder)
    return "", str(_armed.calls)


Trial = tuple[str, int, str]
"""The case, which call fails, and how."""


def _trials(
    names: list[str], faults: list[str], base: Path, most: int, seed: int
) -> tuple[list[Trial], list[str]]:
    """Every trial, or some of them; and what is wrong where nothing fails."""
    trials, wrong = list[Trial](), []
    for number, (kind, what) in in_forks((partial(_try, n, -1, "EIO", base) for n in names), 1):
        if kind:
            wrong.append(f"{names[number]}, where nothing fails: {what}")
            continue
        calls = range(1, int(what) + 1)
        trials += [(names[number], call, fault) for call in calls for fault in faults]
    if len(trials) > most:
        trials = random.Random(seed).sample(trials, most)  # noqa: S311 - no secret
    return sorted(trials), wrong


def _main(options: argparse.Namespace, base: Path) -> int:
    if options.one:
        name, call, fault = options.one.split(":")
        kind, what = _try(name, int(call), fault, base)
        print(kind or "as it must be", what)
        return bool(kind)
    started = time.monotonic()
    names, faults = options.cases.split(","), options.faults.split(",")
    trials, wrong = _trials(names, faults, base, options.most, options.seed)
    found: list[dict[str, Any]] = [{"case": "", "kind": "control", "what": w} for w in wrong]
    works: Iterator[Callable[[], Found]] = (partial(_try, *trial, base) for trial in trials)
    for number, (kind, what) in in_forks(works, options.jobs):
        name, call, fault = trials[number]
        if kind:
            which = f"{name}:{call}:{fault}"
            found.append({"case": name, "kind": kind, "trial": which, "what": what})
            if not options.json:
                print(f"{kind:10} {which:24} {what}", flush=True)
    if options.json:
        print(json.dumps({"tried": len(trials), "bad": found}))
        return bool(found)
    print(*wrong, f"\n{'case':16}{'faults':>8}{'bad':>6}", sep="\n")
    for name, count in sorted(Counter(trial[0] for trial in trials).items()):
        bad = Counter(f["kind"] for f in found if f["case"] == name)
        print(f"{name:16}{count:8}{bad.total():6}  {', '.join(f'{n} {k}' for k, n in bad.items())}")
    spent = time.monotonic() - started
    print(f"{len(trials)} faults, {len(found)} not as they must be ({spent:.0f} s)")
    return bool(found)


def main() -> int:
    """Run what is asked for; without the shim, in a process of its own that has it."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--most", type=int, default=1 << 30, help="so many of the faults, at random"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", default=",".join(CASES), help="separated by commas")
    parser.add_argument("--faults", default=",".join(FAULTS), help="separated by commas")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="what was found, for programs")
    parser.add_argument("--one", help="CASE:CALL:FAULT, as printed")
    options = parser.parse_args()
    with quick_folder() as base:
        if "fault_shim" in os.environ.get("LD_PRELOAD", ""):
            return _main(options, base)
        library, source = base / "fault_shim.so", Path(__file__).with_name("fault_shim.c")
        build = ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        subprocess.run(build, check=True)
        environment = {**os.environ, "LD_PRELOAD": str(library)}
        command = [sys.executable, "-W", "ignore", *sys.argv]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
