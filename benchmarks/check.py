"""What checking plots costs, and whether it ever cries wolf.

    python benchmarks/check.py                          # times, and 200 re-runs in fresh processes
    python benchmarks/check.py --quick                  # a tenth of everything
    python benchmarks/check.py --python OTHER/bin/python    # re-runs with another visdom and numpy

A re-run is a process of its own, with its own hash seed, time zone, locale and number of threads;
it replays the committed recording through every preset, and holds the plots against the committed
goldens with no tolerance at all, in values and in bytes. An alarm is a false one.
"""

import argparse
import collections
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

from flexrec.recorder import Recorder, Recording
from flexrec.replay import compare, play, preset, preset_names, snapshot
from flexrec.replay.golden.snapshot import read_golden
from flexrec.replay.sinks.env_file import dump

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "tests" / "data" / "golden_run.h5"
GOLDENS = ROOT / "tests" / "e2e" / "goldens" / "test_goldens"
ROUNDS = 5


def main() -> int:
    """Measure, print, and return 1 where there was a false alarm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the re-runs")
    parser.add_argument("--re-runs", type=int, default=200, help="how many")
    parser.add_argument("--one-run", action="store_true", help="be one of them: print a report")
    chosen = parser.parse_args()
    if chosen.one_run:
        print(json.dumps(one_run()))
        return 0
    part = 10 if chosen.quick else 1
    with tempfile.TemporaryDirectory() as folder:
        rows = times(Path(folder), 1_000_000 // part)
    print(tabulate(rows, ("check of a recording", "points", "median s", "worst s", "CPU s")))
    return re_runs(chosen.python, chosen.re_runs // part)


def times(folder: Path, scalars: int) -> list[list[object]]:
    """Seconds of the whole command `flexrec check`, on the wall and of the processor."""
    run = folder / "run.h5"
    rng = np.random.default_rng(0)
    with Recorder(run, facts=False) as rec:
        for mark in range(scalars // 100):
            for value in rng.normal(size=50).tolist():
                rec.add(train_loss=value, test_loss=-value)
                rec.step()
            rec.log(mark)
    rows: list[list[object]] = []
    for name, points, options in (
        (f"{scalars} scalars, a point for each log", scalars // 50, ()),
        (f"{scalars} scalars, --max-points 2000", 4000, ("--max-points", "2000")),
        (f"{scalars} scalars, each a point (--every 1)", scalars, ("--every", "1")),
    ):
        golden = folder / f"{len(rows)}.json"
        command = [str(Path(sys.executable).with_name("flexrec")), "check", str(run)]
        command += ["--preset", "loss", "--golden", str(golden), *options]
        subprocess.run([*command, "--update"], check=True, capture_output=True)
        taken = []
        for _ in range(ROUNDS):
            start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, capture_output=True)
            now = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime
            taken.append((time.perf_counter() - start, cpu))
        walls, cpus = zip(*taken, strict=True)
        found = statistics.median(walls), max(walls), statistics.median(cpus)
        rows.append([name, points, *(round(value, 2) for value in found)])
    return rows


def one_run() -> dict[str, object]:
    """Every preset against its golden: how many differ, and a digest of all the bytes."""
    digest, alarms = hashlib.sha256(), []
    with Recording(RUN) as run:
        for name in preset_names():
            path = GOLDENS / f"test_preset-{name}.json"
            obtained = snapshot(play(run, preset(name)))
            found = compare(read_golden(path), obtained, rtol=0.0, atol=0.0)
            if not found or dump(obtained) != path.read_text(encoding="ascii"):
                alarms.append(name)
            digest.update(dump(obtained).encode())
    return {"alarms": alarms, "presets": len(preset_names()), "digest": digest.hexdigest()}


def re_runs(python: str, count: int) -> int:
    """Run `one_run` in fresh processes, each in other surroundings."""
    alarms: collections.Counter[str] = collections.Counter()
    digests: collections.Counter[str] = collections.Counter()
    zones, locales = ("UTC", "Asia/Kathmandu", "Pacific/Apia"), ("C", "C.UTF-8", "POSIX")
    compared = 0
    for i in range(count):
        surroundings = {
            "PYTHONHASHSEED": str(i),
            "TZ": zones[i % 3],
            "LC_ALL": locales[i % 3],
            "OMP_NUM_THREADS": str(1 + i % 2),
        }
        done = subprocess.run(
            [python, str(Path(__file__).resolve()), "--one-run"],
            env={**os.environ, **surroundings},
            capture_output=True,
            text=True,
            check=True,
        )
        report = json.loads(done.stdout)
        alarms.update(report["alarms"])
        digests[report["digest"]] += 1
        compared += report["presets"]
    total = sum(alarms.values())
    print(
        f"{count} re-runs, {compared} comparisons without tolerance: {total} false alarms "
        f"{dict(alarms) or ''}, {len(digests)} different texts"
    )
    return int(total > 0 or len(digests) != 1)


if __name__ == "__main__":
    sys.exit(main())
