"""How long does it take to read a recording back?

python benchmarks/reading.py [--quick]
"""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import begin, folder, interleaved, ratio, seconds, show

from flexrec.recorder import Recorder, Recording

KEYS = 10
MANY = 800


def main() -> None:
    """Ours with 1M and 10M scalars; the others with 1M (TensorBoard with 100k, times ten)."""
    quick = begin(__doc__ or "")
    million = 100_000 if quick else 1_000_000
    with folder() as place:
        base = Path(place)
        ways: dict[str, Callable[[], float]] = {}
        for scalars in (million, 10 * million):
            for state in ("closed", "live"):
                path = recorded(base / f"{scalars}-{state}.h5", scalars // KEYS, state)
                for what in ("one key", "all keys"):
                    ways[f"flexrec, {state}, {scalars:,}: {what}"] = reader(path, what)
        path = recorded(base / "many.h5", million // 1000, "closed", MANY)
        ways[f"flexrec, closed, {million // 1000 * MANY:,} of {MANY} keys: all keys"] = reader(
            path, "all keys"
        )
        events = tensorboard(base / "events", million // 10 // KEYS)
        rows = csv_file(base / "run.csv", million // KEYS)
        ways["TensorBoard's EventAccumulator, all keys ×10"] = lambda: 10 * seconds(events)
        ways["csv, all keys"] = lambda: seconds(rows)
        taken, failed = interleaved(ways, 2 if quick else 9)
    ours = taken[f"flexrec, closed, {million:,}: all keys"]
    show(
        [[name, f"{each:.4f}", ratio(each, ours)] for name, each in taken.items()]
        + [[name, "failed", why] for name, why in failed.items()],
        f"{KEYS} keys",
        "s",
        f"times ours at {million:,}, all keys",
    )


def recorded(path: Path, rows: int, state: str, keys: int = KEYS) -> Path:
    """A recording of so many rows of some keys; a live one is a copy of what was not closed."""
    names = [f"key{i}" for i in range(keys)]
    rng = np.random.default_rng(0)
    rec = Recorder(path, facts=False)
    for _ in range(0, rows, min(rows, 1000)):
        for row in rng.normal(size=(min(rows, 1000), keys)).astype("f4").astype(float).tolist():
            rec.add(dict(zip(names, row, strict=True)))
            rec.step()
    if state == "live":
        rec.flush()
        live = path.with_suffix(".live")
        live.write_bytes(path.read_bytes())
        rec.close()
        live.replace(path)
    rec.close()
    return path


def reader(path: Path, what: str) -> Callable[[], float]:
    """Opens, reads one key or all, and closes."""

    def read() -> None:
        with Recording(path) as run:
            run.series(["key3"] if what == "one key" else run.keys())

    return lambda: seconds(read)


def tensorboard(folder: Path, rows: int) -> Callable[[], None]:
    """Reads a log directory, keeping every event."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for step in range(rows):
        for i in range(KEYS):
            writer.add_scalar(f"key{i}", step * 0.1, step)
    writer.close()

    def read() -> None:
        found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        found.Reload()
        for i in range(KEYS):
            assert len(found.Scalars(f"key{i}")) == rows

    return read


def csv_file(path: Path, rows: int) -> Callable[[], None]:
    """Reads a csv file into arrays."""
    values = np.random.default_rng(0).normal(size=(rows, KEYS)).astype("f4").astype(float)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(values.tolist())

    def read() -> None:
        with path.open(newline="", encoding="utf-8") as file:
            found = np.array([[float(field) for field in row] for row in csv.reader(file)])
        assert found.shape == (rows, KEYS)

    return read


if __name__ == "__main__":
    main()
