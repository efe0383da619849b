"""Trials of a loss of power: is what was promised there, in every state that may be left?

    python tests/support/power_trials.py [--states 2000] [--seed 0] [--workloads close,keys]
    [--json] python tests/support/power_trials.py --one keys:3:512:17 --keep FOLDER     one state,
    to look at

A workload (power_work.py) is run once for some 25 states, under a shim that logs its calls. Each
state is checked in a fork, so that one in which HDF5 crashes or hangs is a finding too. The exit
status is 1 where a state is not as it must be.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


import argparse
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flexrec.recorder.maintenance.repair as repairing
from flexrec.recorder import Recorder, Recording
from support.forks import Found, doing, fault_of, in_forks, preloaded
from support.known import LostError, WrongError, check, record_known
from support.power import Log, build_power_shim, make_state, write_whole
from support.power_work import WORKLOADS, promised

__all__ = ["check_state", "main"]

SECTORS = (512, 4096)
Trial = tuple[str, int, int, int]
"""The workload, the seed of its log, the sector, the seed of the state."""
_STATES = 25  # of a log, about
_KINDS = {"scalars": "scalars", "arrays": "arrays", "big": "big", "keys": "keys"}
_MERGED = {"run-0.h5": "even", "run-1.h5": "odd", "run.h5": "merged"}


def check_state(folder: Path, workload: str, promises: dict[str, int], notes: Path) -> None:
    """All that is promised of a state.

    Raises:
        LostError, WrongError, Exception: it is not kept; the note says what was being done.
    """
    files = _MERGED if workload == "merge" else {"run.h5": _KINDS.get(workload, "mixed")}
    count, path = 0, folder / "run.h5"
    for name, kind in files.items():
        with doing("read"):
            if (folder / name).exists():
                count = check(folder / name, kind, promises.get(name, 0))
            elif name in promises:
                raise LostError(f"{promises[name]} events were promised, and nothing is at {name}")
    if not path.exists():
        return
    copy = folder.with_name(f"{folder.name}.copy")
    shutil.copytree(folder, copy)
    with doing("repair"):
        _check_repair(copy / "run.h5", files["run.h5"], count)
    with doing("resume"):
        held = promises.get("run.h5") if workload == "state_dict" else None
        state = None if held is None else {**json.loads(notes.read_text()), "events": held}
        _check_resume(path, files["run.h5"], count, state)


def _check_repair(path: Path, kind: str, count: int) -> None:
    """Repair makes a closed file of it, of the same events."""

    def asked(task: str, *paths: Path, seconds: float | None) -> dict[str, Any]:
        # What is done in a child of its own is done here: a child for each state takes long.
        return {**(repairing._examine(*paths) if task == "examine" else repairing._close(*paths))}

    repairing._ask = asked
    repairing.repair(path)
    found = check(path, kind, count)
    if found != count:
        raise WrongError(f"{count} events could be read, and {found} after the repair")
    with Recording(path) as run:
        assert run.complete, run.state


def _check_resume(path: Path, kind: str, count: int, state: dict[str, Any] | None) -> None:
    """The next run goes on, syncs and closes, and leaves nothing beside it."""
    with Recorder(path, mode="resume", facts=False, flush_seconds=60) as rec:
        if state is not None:
            rec.load_state_dict(state)
            count = int(state["events"])
        record_known(rec, kind, count, count + 10)
        rec.flush(fsync=True)
        check(path, kind, count + 10, most=count + 10)
    check(path, kind, count + 10, most=count + 10)
    litter = [name for name in os.listdir(path.parent) if name.startswith(f".{path.name}")]
    assert not litter, f"left behind: {litter}"


# ---------------------------------------------------------------------- one state, in a fork


def _make_log(workload: str, seed: int, base: Path) -> Path:
    """Run a workload, and log it; the log's folder."""
    into = base / f"{workload}-{seed}"
    folder = into / "folder"
    folder.mkdir(parents=True)
    child = os.fork()
    if not child:
        status = 1
        try:
            os.environ.update(POWER_FOLDER=str(folder), POWER_LOG=str(into / "log"))
            WORKLOADS[workload](folder, random.Random(seed))  # noqa: S311 - no secret
            status = 0
        finally:
            os._exit(status)  # as a run that just ends: what is open is not closed
    assert os.waitpid(child, 0)[1] == 0, f"the workload {workload} failed"
    _check_log(Log.read(into / "log"), folder, into / "again")
    shutil.rmtree(folder)
    return into


def _check_log(log: Log, folder: Path, again: Path) -> None:
    """The log tells everything: the folder made of it is the folder that it tells of."""
    again.mkdir()
    write_whole(log, again)
    names = sorted(os.listdir(folder))
    assert names == sorted(os.listdir(again)), f"the log makes {os.listdir(again)}, not {names}"
    for name in names:
        whole = (folder / name).read_bytes()
        assert whole == (again / name).read_bytes(), f"the log does not tell all of {name}"
    shutil.rmtree(again)


def _try_state(log: Log, made: Path, workload: str, sector: int, seed: int) -> Found:
    """Make a state and check it."""
    folder = made / f"{sector}-{seed}"
    folder.mkdir()
    point, said = make_state(log, folder, seed, sector)
    for file in folder.iterdir():
        os.utime(file, (0, 0))  # old, or a reader waits for a writer to make it whole
    try:
        check_state(folder, workload, promised(log.promises(point)), made / "state.json")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        kind, what = fault_of(error)
        return kind, f"{said}: {what}"
    finally:
        for rest in made.glob(f"{folder.name}*"):
            shutil.rmtree(rest)
    return "", said


# ---------------------------------------------------------------------- many


def _trials(names: list[str], states: int, seed: int) -> list[Trial]:
    """As many states of each workload and sector, those of a log together."""
    pairs = [(name, sector) for name in names for sector in SECTORS]
    found = []
    for i in range(states):
        (name, sector), number = pairs[i % len(pairs)], i // len(pairs)
        found.append((name, seed + number // _STATES, sector, seed + number))
    return sorted(found)


def _run(trials: list[Trial], base: Path, jobs: int) -> Iterator[tuple[Trial, Found]]:
    """Try states; of each what was found."""

    def works() -> Iterator[Callable[[], Found]]:
        made, log = base, Log()
        for name, log_seed, sector, seed in trials:
            if made.name != f"{name}-{log_seed}":
                made = _make_log(name, log_seed, base)
                log = Log.read(made / "log")
            yield partial(_try_state, log, made, name, sector, seed)

    for number, found in in_forks(works(), jobs):
        yield trials[number], found


def _main(options: argparse.Namespace, base: Path) -> int:
    if options.one:
        name, log_seed, sector, seed = options.one.split(":")
        made = _make_log(name, int(log_seed), base)
        log = Log.read(made / "log")
        into = options.keep or base / "kept"
        into.mkdir(parents=True, exist_ok=True)
        make_state(log, into, int(seed), int(sector))
        kind, what = _try_state(log, made, name, int(sector), int(seed))
        print(kind or "as it must be", what)
        return bool(kind)
    trials = _trials(options.workloads.split(","), options.states, options.seed)
    tried, found, started = Counter[tuple[str, int]](), list[dict[str, Any]](), time.monotonic()
    for (name, log_seed, sector, seed), (kind, what) in _run(trials, base, options.jobs):
        tried[name, sector] += 1
        if kind:
            which = f"{name}:{log_seed}:{sector}:{seed}"
            found.append(
                {"workload": name, "sector": sector, "kind": kind, "state": which, "what": what}
            )
            if not options.json:
                print(f"{kind:10} {which:24} {what}", flush=True)
    if options.json:
        print(json.dumps({"tried": sum(tried.values()), "bad": found}))
        return bool(found)
    print(f"\n{'workload':12}{'sector':>8}{'states':>8}{'bad':>6}")
    for (name, sector), count in sorted(tried.items()):
        bad = Counter(f["kind"] for f in found if (f["workload"], f["sector"]) == (name, sector))
        kinds = ", ".join(f"{n} {kind}" for kind, n in bad.items())
        print(f"{name:12}{sector:8}{count:8}{bad.total():6}  {kinds}")
    spent = time.monotonic() - started
    print(f"{sum(tried.values())} states, {len(found)} not as they must be ({spent:.0f} s)")
    return bool(found)


def main() -> int:
    """Run what is asked for; without the shim, in a process of its own that has it."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--states", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="separated by commas")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="what was found, for programs")
    parser.add_argument("--one", help="WORKLOAD:SEED:SECTOR:SEED, as printed")
    parser.add_argument("--keep", type=Path, help="where the state goes that --one names")
    options = parser.parse_args()
    return preloaded(build_power_shim, partial(_main, options))


if __name__ == "__main__":
    sys.exit(main())
