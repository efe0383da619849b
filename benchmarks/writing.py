"""What does a block cost the thread that writes: its processor time for each flush?

With --than, the same with the code of another checkout, in turn, and the ratio.

    git worktree add /tmp/before COMMIT
    python benchmarks/writing.py --than /tmp/before
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from measuring import machine
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
MEMORY = Path("/dev/shm")  # noqa: S108 - where there is one, no disk makes noise
WORKLOADS = {  # values of an add, adds of a block, blocks
    "1 number": (0.5, 1, 400),
    "1,000 numbers": (0.5, 1000, 100),
    "20,000 numbers": (0.5, 20_000, 20),
    "100 arrays of 1 kB": (np.ones(250, np.float32), 100, 100),
    "100 arrays of 40 kB": (np.ones(10_000, np.float32), 100, 20),
    "32 arrays of 1 MiB": (np.ones(1 << 18, np.float32), 32, 10),
}


def main() -> None:
    """Measure in children, all codes in turn, and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--than", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(turn(options.child))
        return
    codes = [ROOT, *([options.than.resolve()] if options.than else [])]
    print(f"{machine()}\n")
    rows = []
    for workload in WORKLOADS:
        found: dict[Path, list[float]] = {code: [] for code in codes}
        for _ in range(options.rounds):
            for code in codes:
                found[code].append(in_child(code, workload))
        medians = [statistics.median(found[code]) * 1e6 for code in codes]
        ratios = [a / b for a, b in zip(found[codes[0]], found[codes[-1]], strict=True)]
        row = [workload, *(f"{median:.0f}" for median in medians)]
        rows.append([*row, *([f"{statistics.median(ratios):.2f}"] if options.than else [])])
    print(tabulate(rows, ["a block of", "µs", *(["before, µs", "ratio"] if options.than else [])]))


def in_child(code: Path, workload: str) -> float:
    """Seconds a block, with the code of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        links = Path(folder, "flexrec")
        links.mkdir()
        for name in ("recorder", "replay", "cli"):
            (links / name).symlink_to(code / name)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, "--child", workload],
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=True,
        )
    return float(done.stdout)


def turn(workload: str) -> float:
    """The processor time of the thread that writes, and of this one in `flush`, a block."""
    from flexrec.recorder import Recorder

    value, adds, blocks = WORKLOADS[workload]
    took = []
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        rec = Recorder(Path(folder, "run.h5"), facts=False, flush_seconds=1e6, fsync_seconds=1e6)
        writer = next(thread for thread in threading.enumerate() if thread.name == "flexrec")
        clock = time.pthread_getcpuclockid(writer.ident or 0)
        for _ in range(blocks):
            before = time.clock_gettime(clock)
            for _ in range(adds):
                rec.add({"value": value})
            begun = time.thread_time()
            rec.flush()
            took.append(time.thread_time() - begun + time.clock_gettime(clock) - before)
        rec.close()
    return statistics.fmean(sorted(took)[: blocks * 9 // 10])


if __name__ == "__main__":
    main()
