"""Trials of writes that fail: each call that changes a file fails once, then the disk recovers.

    python tests/support/write_faults.py [--most 300] [--cases keys,close] [--faults EIO] [--json]
    python tests/support/write_faults.py --one keys:12:torn

A case is run once to count its calls, and then once for each of them and each way to fail, in a
fork. What was added before a `flush(fsync=True)` that came after the fault must be in a copy of the
live file, and in the end in the closed one: nothing is missing, and nothing is wrong.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


import argparse
import json
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from support.fault_work import CASES, FAULTS, Faults, run_case
from support.forks import Found, fault_of, in_forks, preloaded
from support.known import LostError

__all__ = ["main"]

Trial = tuple[str, int, str]
"""The case, which call fails, and how."""


def _try(name: str, call: int, fault: str, base: Path) -> Found:
    """One trial; where no call is to fail, what is found is how many there are."""
    faults = Faults(call, fault)
    folder = base / f"{name}-{call}-{fault}"
    folder.mkdir()
    try:
        run_case(name, faults, folder)
        if call >= 0 and not faults.failed:
            raise LostError("no call failed: the trial is at fault")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        kind, what = fault_of(error)
        return kind, f"{faults.failed}: {what}"
    finally:
        shutil.rmtree(folder)
    return "", str(faults.calls)


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
    return preloaded(_build_shim, partial(_main, options))


def _build_shim(folder: Path) -> Path:
    """Compile the shim with the system's C compiler."""
    library, source = folder / "fault_shim.so", Path(__file__).with_name("fault_shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


if __name__ == "__main__":
    sys.exit(main())
