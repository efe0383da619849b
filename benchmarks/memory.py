"""How much memory do recording, closing and replaying a day take?

    python benchmarks/memory.py [--quick | --full]

The peak of a process that does only that, in MiB, less what it had after its imports.
"""

import sys
from pathlib import Path

from measuring import begin, folder, in_child, show

RECORD = """
import resource, sys, time
from flexrec.recorder import Recorder
path, count, keys = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
names = [f"k{i}" for i in range(keys)]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = peak(), time.perf_counter()
rec = Recorder(path, facts=False)
for i in range(count // keys):
    rec.add(dict.fromkeys(names, 1 / (i + 1)))
    rec.step()
    if i % max(1, count // keys // 1000) == 0:
        rec.log()
while_recording, recorded = peak(), time.perf_counter()
rec.close()
print(before, while_recording, peak(), recorded - start, time.perf_counter() - recorded)
"""
REPLAY = """
import resource, sys, time
from flexrec.recorder import Recording
from flexrec.replay import define, play
path, every = sys.argv[1], int(sys.argv[2]) or None
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
definitions = define(
    {"all": {"type": "line"}}, {"k*": {"type": "AverageValueMeter", "target": "all"}}
)
before, start = peak(), time.perf_counter()
with Recording(path) as run:
    windows = play(run, definitions, every=every)
print(before, peak(), time.perf_counter() - start)
"""
HEADERS = (
    "scalars",
    "keys",
    "recording, MiB",
    "and closing",
    "replaying, MiB",
    "in one piece",
    "record, s",
    "close, s",
    "replay, s",
)


def main() -> None:
    """1M and 10M scalars, or with --full 100M, in dicts of 1, 2, 10 and 800 keys."""
    full = "--full" in sys.argv
    if full:
        sys.argv.remove("--full")
    quick = begin(__doc__ or "")
    counts = [200_000, 2_000_000] if quick else [100_000_000] if full else [1_000_000, 10_000_000]
    with folder() as place:
        rows = [
            measured(Path(place) / "run.h5", count, keys)
            for keys in (1, 2, 10, 800)
            for count in counts
        ]
    show(rows, *HEADERS)


def measured(path: Path, count: int, keys: int) -> list[str]:
    """One row; "in one piece" is a replay whose one mark comes after all values."""
    before, recording, closing, took, close_took = map(float, in_child(RECORD, path, count, keys))
    idle, replaying, replay_took = map(float, in_child(REPLAY, path, 0))
    also_idle, at_once, _ = map(float, in_child(REPLAY, path, count))
    path.unlink()
    peaks = (recording - before, closing - before, replaying - idle, at_once - also_idle)
    times = (took, close_took, replay_took)
    return [f"{count:,}", str(keys), *(f"{p:.0f}" for p in peaks), *(f"{t:.1f}" for t in times)]


if __name__ == "__main__":
    main()
