"""What do a block, for the thread that writes, and an add, for the one that trains, cost?

That is processor time: of each flush, and of each add; and the longest time of an add by the clock.

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
from collections.abc import Iterable, Sequence
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
ADDS = {  # values of an add, adds
    **{
        f"{count} floats": (count, 0.5, adds)
        for count, adds in ((2, 40_000), (10, 20_000), (800, 600))
    },
    **{
        f"{count} 0-d tensors": (count, None, adds)
        for count, adds in ((2, 20_000), (10, 5_000), (800, 200))
    },
}


def main() -> None:
    """Measure in children, all codes in turn, and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--than", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(*([block(options.child)] if options.child in WORKLOADS else add(options.child)))
        return
    codes = [ROOT, *([options.than.resolve()] if options.than else [])]
    print(f"{machine()}\n")
    compare("a block of", WORKLOADS, codes, options.rounds)
    compare("an add of", ADDS, codes, options.rounds)


def compare(what: str, workloads: Iterable[str], codes: Sequence[Path], rounds: int) -> None:
    """A row for each workload and quantity: medians, and the median of the ratios."""
    rows = []
    for workload in workloads:
        found = {code: [in_child(code, workload)] for code in codes}
        for _ in range(rounds - 1):
            for code in codes:
                found[code].append(in_child(code, workload))
        for number, name in enumerate(
            (workload, f"{workload}, the longest")[: len(found[codes[0]][0])]
        ):
            each = [[turn[number] for turn in found[code]] for code in codes]
            row = [name, *(f"{statistics.median(one) * 1e6:.4g}" for one in each)]
            ratios = [a / b for a, b in zip(each[0], each[-1], strict=True)]
            rows.append([*row, *[f"{statistics.median(ratios):.2f}"] * (len(codes) > 1)])
    headers = [what, "µs", *["before, µs", "ratio"] * (len(codes) > 1)]
    print(tabulate(rows, headers, disable_numparse=True) + "\n")


def in_child(code: Path, workload: str) -> list[float]:
    """Seconds a block; or an add, and the longest add; with the code of a checkout."""
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
    return [float(word) for word in done.stdout.split()]


def block(workload: str) -> float:
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


def add(workload: str) -> tuple[float, float]:
    """The processor time of an add, and the longest time of one by the clock."""
    from flexrec.recorder import Recorder

    count, number, adds = ADDS[workload]
    value: object = number
    if number is None:
        import torch

        value = torch.tensor(0.5)
    values = {f"k{i}": value for i in range(count)}
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        rec = Recorder(Path(folder, "run.h5"), facts=False)
        for _ in range(20):
            rec.add(values)
            rec.step()
        longest, took = 0.0, 0.0
        for _ in range(adds):
            begun, before = time.perf_counter(), time.thread_time()
            rec.add(values)
            took += time.thread_time() - before
            longest = max(longest, time.perf_counter() - begun)
            rec.step()
        rec.close()
    return took / adds, longest


if __name__ == "__main__":
    main()
