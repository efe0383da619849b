"""What `monitor=` and `console=` cost on the training thread, and a sample in the writer's.

    python benchmarks/surroundings.py [--quick]

A step is a little arithmetic, an `add` and a `step`; in some rows it prints a line, to a file.
Ways take turns, some hundred steps at a time; the table has medians of the processor time of the
training thread for a step, and their difference to the first row of the same kind.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import begin, folder, show

from flexrec.recorder import Recorder
from flexrec.recorder.writing.surroundings.machine import Machine

_WAYS: dict[str, dict[str, Any]] = {
    "a recorder": {},
    "monitor=10": {"monitor": 10},
    "monitor=1": {"monitor": 1},
    "a recorder, and a line printed": {"prints": True},
    "console=True, and a line printed": {"prints": True, "console": True},
}


def way(path: Path, *, prints: bool = False, **options: Any) -> tuple[Recorder, Callable[[], None]]:
    """A recorder, and a step of a training with it, which prints to a file of its own."""
    before, sys.stdout = sys.stdout, path.with_suffix(".txt").open("w")
    try:
        stream, rec = sys.stdout, Recorder(path, facts=False, **options)
    finally:
        sys.stdout = before

    def step() -> None:
        loss = sum(i * i for i in range(200))
        rec.add({"loss": loss, "lr": 0.1})
        if prints:
            print("step", loss, file=stream)
        rec.step()

    return rec, step


def main() -> None:
    """Measure, and print the table."""
    quick = begin(__doc__ or "")
    rounds, steps = (5, 200) if quick else (40, 500)
    times: dict[str, list[float]] = {name: [] for name in _WAYS}
    with folder() as name_of_folder:
        place = Path(name_of_folder)
        made = {
            name: way(place / f"{i}.h5", **options)
            for i, (name, options) in enumerate(_WAYS.items())
        }
        for _ in range(rounds):
            for name, (_, step) in made.items():
                start = time.thread_time()
                for _ in range(steps):
                    step()
                times[name].append((time.thread_time() - start) / steps)
        for rec, _ in made.values():
            rec.close()
        machine, samples = Machine(place / "run.h5"), list[float]()
        for _ in range(20):
            start = time.thread_time()
            machine.read()
            samples.append(time.thread_time() - start)
    medians = {name: 1e6 * statistics.median(found) for name, found in times.items()}
    rows = []
    for name, found in medians.items():
        first = next(other for other in medians if ("line" in other) == ("line" in name))
        rows.append((name, f"{found:.1f}", f"{found - medians[first]:+.1f}"))
    show(rows, "way", "µs a step", "more")
    print(f"\na sample of the machine: {1e3 * statistics.median(samples):.2f} ms")


if __name__ == "__main__":
    main()
