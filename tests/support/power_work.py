"""What is recorded while tests/support/power_shim.c logs it.

Each workload starts in an empty folder, and marks in the log what was promised once the call that
promises it has returned: so many events of a file survive a loss of power from there on.
"""

import ctypes
import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from flexrec.recorder import Recorder, merge_recordings
from flexrec.recorder.maintenance.repair import repair
from support.known import KINDS, record_known

__all__ = ["FILES", "WORKLOADS", "promised"]

FILES = ("run.h5", "run-0.h5", "run-1.h5")
_COUNT = 1 << 40  # what is marked is the number of a file times this, and how many events


def promised(marks: list[int]) -> dict[str, int]:
    """How many events of each file the marks promise."""
    found: dict[str, int] = {}
    for mark in marks:
        name = FILES[mark // _COUNT]
        found[name] = max(found.get(name, 0), mark % _COUNT)
    return found


def _promise(count: int, name: str = "run.h5") -> None:
    ctypes.CDLL(None).power_mark(ctypes.c_long(FILES.index(name) * _COUNT + count))


class _Writer:
    """A recorder of known events in blocks of random sizes, and what it promises."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        chance: random.Random,
        *,
        name: str = "run.h5",
        mode: Literal["x", "resume"] = "x",
        count: int = 0,
    ) -> None:
        self.path, self.kind, self.chance, self.name = folder / name, kind, chance, name
        self.count = count
        padding = {"padding": "x" * chance.randint(0, 900)}  # moves what follows it in the file
        self.rec = Recorder(self.path, mode=mode, facts=False, flush_seconds=60, config=padding)

    def write(self, blocks: int, *, syncs: float = 0.15) -> None:
        """Record blocks, and flush each; of some, sync it."""
        for _ in range(blocks):
            more = self.chance.randint(1, KINDS[self.kind].block)
            record_known(self.rec, self.kind, self.count, self.count + more)
            self.count += more
            if self.chance.random() < syncs:
                self.sync()
            else:
                self.rec.flush()

    def sync(self) -> None:
        self.rec.flush(fsync=True)
        _promise(self.count, self.name)

    def close(self) -> None:
        self.rec.close()
        _promise(self.count, self.name)


def _record(kind: str, blocks: int, folder: Path, chance: random.Random) -> None:
    """Blocks, and in the end a close or none."""
    writer = _Writer(folder, kind, chance)
    writer.write(blocks)
    if chance.random() < 0.3:
        writer.close()


def _close(folder: Path, chance: random.Random) -> None:
    """A few blocks, a sync, a few more, and a close."""
    writer = _Writer(folder, "mixed", chance)
    writer.write(chance.randint(1, 6))
    if chance.random() < 0.7:
        writer.sync()
    writer.write(chance.randint(0, 3), syncs=0)
    writer.close()


def _resume(folder: Path, chance: random.Random) -> None:
    """A run that is closed or just ends, the next that goes on, and one more."""

    def run(count: int, mode: Literal["x", "resume"]) -> int:
        writer = _Writer(folder, "mixed", chance, mode=mode, count=count)
        writer.write(8, syncs=0.3)
        if chance.random() < 0.5:
            writer.close()
        else:
            writer.sync()
        return writer.count

    count = _in_a_fork(chance, partial(run, 0, "x"))
    for _ in range(2):
        count = _in_a_fork(chance, partial(run, count, "resume"))


def _state_dict(folder: Path, chance: random.Random) -> None:
    """A checkpoint after every few blocks."""
    writer = _Writer(folder, "mixed", chance)
    for i in range(8):
        writer.write(chance.randint(1, 4), syncs=0)
        state = writer.rec.state_dict()
        _promise(int(state["events"]))
        if not i:
            (folder.parent / "state.json").write_text(json.dumps(state))


def _repair(folder: Path, chance: random.Random) -> None:
    """What a run left that just ended is repaired."""

    def run() -> int:
        writer = _Writer(folder, "mixed", chance)
        writer.write(6, syncs=0.3)
        writer.sync()
        return writer.count

    count = _in_a_fork(chance, run)
    repair(folder / "run.h5", keep_original=chance.random() < 0.5)
    _promise(count)


def _merge(folder: Path, chance: random.Random) -> None:
    """Two recordings of the same length are merged."""
    paths = []
    for kind, name in (("even", "run-0.h5"), ("odd", "run-1.h5")):
        writer = _Writer(folder, kind, chance, name=name)
        record_known(writer.rec, kind, 0, 200)
        writer.count = 200
        writer.close()
        paths.append(writer.path)
    _promise(merge_recordings(paths, folder / "run.h5").events)


def _in_a_fork(chance: random.Random, run: Callable[[], int]) -> int:
    """Run it in a fork, which ends without a word; what it returns."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.write(writing, run().to_bytes(8, "little"))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    told = os.read(reading, 8)
    os.close(reading)
    assert os.waitpid(child, 0)[1] == 0
    chance.seed(chance.random())
    return int.from_bytes(told, "little")


WORKLOADS: dict[str, Callable[[Path, random.Random], None]] = {
    "scalars": partial(_record, "scalars", 30),
    "mixed": partial(_record, "mixed", 30),
    "arrays": partial(_record, "arrays", 30),
    "big": partial(_record, "big", 14),
    "keys": partial(_record, "keys", 40),
    "close": _close,
    "resume": _resume,
    "state_dict": _state_dict,
    "repair": _repair,
    "merge": _merge,
}
