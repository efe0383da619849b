"""Writers that are killed, and what must be left of what they wrote: for the tests and trials.

A writer is a fork of this process, so that a thousand kills take minutes. What it records at each
position is known from the position alone: nothing has to be remembered to know what must be there.
"""

import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.events import Add, Event, Log
from support.event_cases import same_event

__all__ = [
    "build_shim",
    "check_prefix",
    "check_resumes",
    "crash",
    "event_at",
    "kill_at",
    "killed",
    "record",
    "shim_calls",
    "under_shim",
]

HERE = Path(__file__).parent
TESTS = HERE.parent  # on the path of what is started
deaths = 0  # kills that came before the work was done


def crash(rec: Recorder) -> None:
    """Leave the file as a kill would, after a flush."""
    rec.flush()
    copy = rec.path.with_suffix(".crashed")
    shutil.copyfile(rec.path, copy)
    rec.close()
    os.replace(copy, rec.path)


def event_at(position: int) -> Event:
    """The event that a writer records at a position: numbers, now and then arrays, which several
    keys may share, and a log."""
    step, seconds = position // 3, 1e9 + position
    if position % 29 == 28:
        return Log(float(position), None, True, step, seconds)
    values: dict[str, object] = {"a": float(position)}
    if position % 5 == 4:
        values[f"k{position % 7}"] = position / 3
    if position % 11 == 10:
        array = np.full(position % 301, position, np.float32)
        values = {"pair": (array, f"text {position}"), "a": float(position)}
        if position % 2:
            values["again"] = (array, array) if position % 3 else array
        if position % 5 == 0:
            values = {"again": array, **values}
    return Add(values, step, seconds)  # type: ignore[arg-type]


def record(rec: Recorder, first: int, last: int) -> None:
    """Record the events of positions `first` to `last`."""
    for position in range(first, last):
        rec.record(event_at(position))


def check_prefix(path: Path, at_least: int, *, closed: bool | None = None) -> int:
    """The recording holds the first so many events, and nothing else; how many they are."""
    with Recording(path) as run:
        found = list(run.events())
        assert closed in (None, run.complete)
    assert len(found) >= at_least, f"{at_least} events were flushed, {len(found)} are there"
    for position, event in enumerate(found):
        assert same_event(event, event_at(position)), f"event {position} is {event}"
    return len(found)


def check_resumes(path: Path, count: int) -> None:
    """The recording goes on, closes, and leaves nothing beside it."""
    with Recorder(path, mode="resume", facts=False, flush_seconds=60) as rec:
        record(rec, count, count + 10)
    check_prefix(path, count + 10, closed=True)
    litter = [name for name in os.listdir(path.parent) if name.startswith(".")]
    assert not litter, f"left behind: {litter}"


def killed(work: Callable[[Callable[[int], None]], None], *, after: float | None = None) -> int:
    """Run `work` in a fork that is killed, by itself or `after` so many seconds.

    `work` is given a function that it tells how many events are flushed; the last of these is
    returned, -1 where there was none.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status = 1
        try:
            work(lambda count: void(os.write(writing, count.to_bytes(8, "little"))))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    told = b""
    while data := os.read(reading, 1 << 16):
        told += data
    os.close(reading)
    _, status = os.waitpid(child, 0)
    global deaths
    deaths += status == signal.SIGKILL
    assert status in (0, signal.SIGKILL), f"the writer ended with status {status}"
    return int.from_bytes(told[-8:], "little") if told else -1


def void(_: object) -> None:
    """Drop a value."""


def write_in_blocks(path: Path, seed: int, tell: Callable[[int], None]) -> None:
    """Record and flush blocks of random sizes; after some of them close, and resume."""
    chance, count = random.Random(seed), 0  # noqa: S311 - no secret
    rec = Recorder(path, facts=False, flush_seconds=chance.choice([0.01, 60]))
    while count < 20_000:
        more = chance.randint(1, 60)
        record(rec, count, count + more)
        count += more
        rec.flush()
        tell(count)
        if chance.random() < 0.05:
            rec.close()
            rec = Recorder(path, mode="resume", facts=False, flush_seconds=60)
    rec.close()


# ---------------------------------------------------------------------- the shim


def build_shim(folder: Path) -> Path:
    """Compile the shim with the system's C compiler."""
    library = folder / "kill_shim.so"
    source = HERE / "kill_shim.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def under_shim(library: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code with the shim preloaded, and this folder on its path."""
    paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def shim_calls() -> int:
    """How many calls that change files this process has made."""
    return ctypes.c_long.in_dll(ctypes.CDLL(None), "shim_count").value


def kill_at(call: int, *, within: bool = False) -> None:
    """Have this process killed just before its n-th call that changes a file, or within it."""
    ctypes.c_int.in_dll(ctypes.CDLL(None), "shim_partial").value = int(within)
    ctypes.c_long.in_dll(ctypes.CDLL(None), "shim_kill_at").value = call


def fail_writes(errno: int) -> None:
    """Have every write of this process fail with this error; 0: no longer."""
    ctypes.c_int.in_dll(ctypes.CDLL(None), "shim_errno").value = errno
