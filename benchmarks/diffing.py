"""What does it cost to compare two runs of 800 keys: equal ones, and ones that differ late?

    python benchmarks/diffing.py [--quick]

Half of the keys are noise of a float32, half are fingerprints. Each comparison is a process of its
own; the time is that of `flexrec.diff`, without the imports.
"""

import shutil
import statistics
from itertools import product
from pathlib import Path

import numpy as np
from measuring import begin, bytes_in, folder, in_child, show

from flexrec.recorder import Recorder

KEYS = 800

CODE = """
import resource, sys, time
import flexrec
from flexrec.replay.diff.compare import diff
diff(sys.argv[3], sys.argv[3])
start, began = time.perf_counter(), time.process_time()
found = diff(*sys.argv[1:3])
seconds = time.perf_counter() - start, time.process_time() - began
first = found.first.step if found.first else None
print(*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, first)
"""


def main() -> None:
    """Record, compare, and print the table."""
    quick = begin(__doc__ or "")
    steps, rounds = (20_000, 1) if quick else (100_000, 3)
    with folder() as place:
        path = Path(place)
        a = record(path / "a.h5", steps)
        same = Path(shutil.copy(a, path / "same.h5"))
        late = record(path / "late.h5", steps, differs=steps * 3 // 4)
        small = record(path / "small.h5", 10)
        rows = []
        for name, other in (("equal", same), ("from 3/4 on", late)):
            found = [in_child(CODE, a, other, small) for _ in range(rounds)]
            wall, used, memory = (
                statistics.median(float(each[i]) for each in found) for i in range(3)
            )
            rows.append([name, found[0][3], f"{wall:.2f}", f"{used:.2f}", f"{memory:.0f}"])
        size = bytes_in(a) / 1e6
    print(f"{KEYS} keys, {steps:,} steps, {size:.0f} MB each\n")
    show(rows, "runs that differ", "first step", "s", "of a processor, s", "peak MiB")


def record(path: Path, steps: int, *, differs: int | None = None) -> Path:
    """Record a run of noise; of one that differs, every key does from a step on."""
    rng = np.random.default_rng(0)
    layers = range(KEYS // (len(_SOURCES) * len(_STATISTICS)))
    names = ["/".join(parts) for parts in product(map(str, layers), _SOURCES, _STATISTICS)]
    with Recorder(path, facts=False) as rec:
        for step in range(steps):
            numbers = rng.normal(size=KEYS // 2).astype(np.float32).astype(np.float64)
            prints = rng.integers(1 << 53, size=KEYS // 2).astype(np.float64)
            if differs is not None and step >= differs:
                numbers += 1.0
            rec.add(dict(zip(names, np.concatenate([numbers, prints]).tolist(), strict=True)))
            rec.step()
    return path


_SOURCES = ("inputs", "outputs", "weights", "grad_in")
_STATISTICS = ("mean", "std", "min", "max", "norm", "median", "abs_mean", "zero_fraction")


if __name__ == "__main__":
    main()
