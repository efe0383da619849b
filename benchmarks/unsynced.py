"""How long does it take to open a live file of which nothing was synced?

    python benchmarks/unsynced.py [--quick]

A reader checks every flush when it opens the file, and the arrays and texts of those since the last
sync too. Here each add is flushed by itself, and none is synced.
"""

import statistics
from pathlib import Path

from measuring import begin, folder, in_child, show

RECORD = """
import os, sys
from flexrec.recorder import Recorder
rec = Recorder(sys.argv[1], facts=False, flush_seconds=3600, fsync_seconds=3600)
for step in range(int(sys.argv[2])):
    rec.add(loss=1 / (step + 1))
    rec.step()
    rec.flush(fsync=False)
print(step, flush=True)
os._exit(0)
"""
OPEN = """
import resource, sys, time
from flexrec.recorder import Recording
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = peak(), time.process_time()
with Recording(sys.argv[1]) as run:
    print(len(run["loss"]), time.process_time() - start, peak() - before)
"""


def main() -> None:
    """Medians of five readers, each in a process of its own."""
    quick = begin(__doc__ or "")
    rows = []
    with folder() as made:
        for count in (2_000, 20_000) if quick else (20_000, 200_000):
            path = Path(made, f"{count}.h5")
            in_child(RECORD, path, count)
            read = [list(map(float, in_child(OPEN, path))) for _ in range(1 if quick else 5)]
            events, seconds, mib = (statistics.median(each) for each in zip(*read, strict=True))
            rows.append((f"{count:,}", f"{events:,.0f}", f"{seconds:.2f}", f"{mib:.0f}"))
    show(rows, "flushes", "events read", "processor time, s", "memory, MiB")


if __name__ == "__main__":
    main()
