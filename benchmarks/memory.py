"""How much memory do recording and replaying a day take?

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
path, plain = sys.argv[1], sys.argv[2] == "plain"
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
definitions = define(
    {"all": {"type": "line"}}, {"k*": {"type": "AverageValueMeter", "target": "all"}}
)
before, start = peak(), time.perf_counter()
with Recording(path) as run:
    windows = play(run, definitions, plain=plain)
print(before, peak(), time.perf_counter() - start)
"""


def main() -> None:
    """10M scalars, and with --full 100M; with 10 and 800 keys."""
    full = "--full" in sys.argv
    if full:
        sys.argv.remove("--full")
    quick = begin(__doc__ or "")
    counts = [200_000, 2_000_000] if quick else [1_000_000, 10_000_000]
    rows = []
    with folder() as place:
        for keys in (10, 800):
            for count in counts + ([100_000_000] if full and keys == 800 else []):
                path = Path(place) / f"{keys}-{count}.h5"
                before, recording, closing, took, close_took = map(
                    float, in_child(RECORD, path, count, keys)
                )
                idle, replaying, replay_took = map(float, in_child(REPLAY, path, "quick"))
                rows.append(
                    [
                        f"{count:,}",
                        keys,
                        *(f"{peak:.0f}" for peak in (recording - before, closing - before)),
                        f"{replaying - idle:.0f}",
                        *(f"{took:.1f}" for took in (took, close_took, replay_took)),
                    ]
                )
                path.unlink()
    headers = ("recording, MiB", "and closing", "replaying, MiB", "record, s", "close, s")
    show(rows, "scalars", "keys", *headers, "replay, s")


if __name__ == "__main__":
    main()
