"""How do costs grow: with ten and a hundred times as much, is it ten and a hundred times the cost?

python benchmarks/growing.py [--quick]
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from measuring import begin, folder, seconds, show

from flexrec.recorder import Recorder, Recording
from flexrec.replay import define, play, preset


def main() -> None:
    """Scalars, keys, marks and pairs: each n, 10 n and 100 n."""
    quick = begin(__doc__ or "")
    shrink = 10 if quick else 1
    rows = []
    for title, sizes, run in (
        ("scalars of 10 keys", (30_000, 300_000, 3_000_000), scalars),
        ("keys, 300k scalars", (30, 300, 3000), keys),
        ("marks, 300k scalars", (300, 3000, 30_000), marks),
        ("pairs of 4×20", (300, 3000, 30_000), pairs),
    ):
        found = [run(max(1, size // shrink)) for size in sizes]
        for what in found[0]:
            times = [each[what] for each in found]
            growth = [f"{after / before:.1f}" for before, after in pairwise(times)]
            rows.append([title, what, *(f"{time:.3f}" for time in times), " ".join(growth)])
    show(rows, "of", "what", "n, s", "10 n, s", "100 n, s", "growth from each to the next")


def scalars(n: int) -> dict[str, float]:
    """So many scalars in dicts of ten keys, a mark for each hundred dicts."""
    return measured(lambda rec: fill(rec, n // 10, 10, 100))


def keys(n: int) -> dict[str, float]:
    """So many keys, with the same number of scalars."""
    return measured(lambda rec: fill(rec, 300_000 // n, n, max(1, 3000 // n)))


def marks(n: int) -> dict[str, float]:
    """So many marks, with the same number of scalars."""
    return measured(lambda rec: fill(rec, 30_000, 10, max(1, 30_000 // n)))


def pairs(n: int) -> dict[str, float]:
    """So many pairs of output and target."""
    rng = np.random.default_rng(0)
    output, target = rng.normal(size=(2, 4, 20)).astype("f4")

    def work(rec: Recorder) -> None:
        for i in range(n):
            rec.add(train_mse=(output, target))
            rec.step()
            if i % 100 == 0:
                rec.log()

    return measured(work, "MSE")


def fill(rec: Recorder, count: int, width: int, every: int) -> None:
    """So many dicts of so many keys, with a mark every so many."""
    names = [f"k{i}" for i in range(width)]
    for i in range(count):
        rec.add(dict.fromkeys(names, 1 / (i + 1)))
        rec.step()
        if i % every == 0:
            rec.log()


def measured(work: Callable[[Recorder], None], plotted: str = "") -> dict[str, float]:
    """Seconds to record, close, read and replay: the best of three."""
    table = {"k*": {"type": "AverageValueMeter", "target": "all"}}
    definitions = preset(plotted) if plotted else define({"all": {"type": "line"}}, table)
    rounds = []
    for _ in range(3):
        with folder() as place:
            path = Path(place) / "run.h5"
            rec = Recorder(path, facts=False)
            recording = seconds(lambda rec=rec: work(rec))  # type: ignore[misc]
            closing = seconds(rec.close)
            with Recording(path) as run:
                reading = seconds(lambda run=run: run.series(run.keys()))  # type: ignore[misc]
            with Recording(path) as run:
                replaying = seconds(lambda run=run: play(run, definitions))  # type: ignore[misc]
            rounds.append((recording, closing, reading, replaying))
    names = ("record", "close", "read", "replay")
    return dict(zip(names, map(min, zip(*rounds, strict=True)), strict=True))


if __name__ == "__main__":
    main()
