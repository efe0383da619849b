"""The trials of kills, one function each; `benchmarks/reliability.py` runs them in their hundreds.

Each returns how many trials ran; what must not be raises AssertionError.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


import os
import random
import shutil
import tempfile
from collections.abc import Callable

from flexrec.recorder import Recorder
from flexrec.recorder.errors import RecordingError
from flexrec.recorder.maintenance import repair
from support import crashing
from support.crashing import (
    check_prefix,
    check_resumes,
    kill_at,
    killed,
    record,
    shim_calls,
    write_in_blocks,
)

__all__ = ["TRIALS"]

Trial = Callable[[int, Path], None]
_EVENTS = 400  # that a recording holds which is closed, repaired or resumed


def at_random_times(seed: int, folder: Path) -> None:
    """SIGKILL at a random time while a writer makes, writes, closes and resumes a recording."""
    path = folder / "run.h5"
    after = random.Random(seed).uniform(0.0, 0.25)  # noqa: S311 - no secret
    flushed = killed(lambda tell: write_in_blocks(path, seed, tell), after=after)
    _check(path, flushed)


def before_random_writes(seed: int, folder: Path) -> None:
    """SIGKILL just before a random write of the same, or within it, where a page ends."""
    path, chance = folder / "run.h5", random.Random(seed)  # noqa: S311 - no secret
    call, within = chance.randint(1, chance.choice([60, 1500])), chance.random() < 0.3

    def work(tell: Callable[[int], None]) -> None:
        kill_at(shim_calls() + call, within=within)
        write_in_blocks(path, seed, tell)

    _check(path, killed(work))


def in_close(seed: int, folder: Path) -> None:
    """SIGKILL just before a random write, rename or removal within close()."""
    path = folder / "run.h5"

    def work(tell: Callable[[int], None]) -> None:
        rec = Recorder(path, facts=False, flush_seconds=60)
        record(rec, 0, _EVENTS)
        rec.flush()
        tell(_EVENTS)
        _kill_within(seed, lambda: rec.close())

    killed(work)
    _check_whole(path)


def in_resume(seed: int, folder: Path) -> None:
    """SIGKILL just before a random write, rename or removal while a recording is resumed."""
    path = _unfinished(folder, closed=bool(seed % 2))
    killed(lambda _: _kill_within(seed, lambda: Recorder(path, mode="resume", facts=False).flush()))
    _check_whole(path)


def in_repair(seed: int, folder: Path) -> None:
    """SIGKILL just before a random write, rename or removal within repair."""
    path = _unfinished(folder, closed=False)

    def asked(task: str, *paths: Path, seconds: float | None) -> dict[str, object]:
        return {**(repair._examine(*paths) if task == "examine" else repair._close(*paths))}

    def work(_: Callable[[int], None]) -> None:
        # What the command does in a child of its own is done here, where the kill comes.
        repair._ask = asked
        _kill_within(seed, lambda: repair.repair(path))

    killed(work)
    _check_whole(path)


TRIALS: dict[str, Trial] = {
    "kill-time": at_random_times,
    "kill-write": before_random_writes,
    "kill-close": in_close,
    "kill-repair": in_repair,
    "kill-resume": in_resume,
}


def _kill_within(seed: int, work: Callable[[], object]) -> None:
    """Run `work`, and be killed in it; it makes some 40 to 55 calls that change files."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    kill_at(shim_calls() + chance.randint(1, 55), within=chance.random() < 0.3)
    work()


def _unfinished(folder: Path, *, closed: bool) -> Path:
    """A recording of a killed run, or a closed one."""
    path, copy = folder / "run.h5", folder / "copy"
    with Recorder(path, facts=False, flush_seconds=60) as rec:
        record(rec, 0, _EVENTS)
        rec.flush()
        shutil.copyfile(path, copy)
    if not closed:
        os.replace(copy, path)
    copy.unlink(missing_ok=True)
    return path


def _check(path: Path, flushed: int) -> None:
    if flushed < 0 and not path.exists():
        return  # killed before there was a recording: nothing half-made is at its path
    check_resumes(path, check_prefix(path, max(flushed, 0)))


def _check_whole(path: Path) -> None:
    """The old or the new file, whole, and no litter once it has been opened again."""
    assert check_prefix(path, _EVENTS) == _EVENTS
    check_resumes(path, _EVENTS)


def run(trial: Trial, first: int, count: int) -> int:
    """So many runs of a trial, with seeds from `first` on; how many ended as they must."""
    good = 0
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                trial(seed, Path(folder))
                good += 1
            except (AssertionError, RecordingError, OSError, RuntimeError) as error:
                kept = f"{folder}.kept"
                shutil.copytree(folder, kept)
                print(f"seed {seed}: {error!r:.300} ({kept})", flush=True)
    return good


if __name__ == "__main__":
    name, first, count = sys.argv[1:]
    good = run(TRIALS[name], int(first), int(count))
    print(f"{good} of {count} as they must be; {crashing.deaths} of the writers were killed")
