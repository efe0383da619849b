"""How many bytes does a scalar take in a closed file, and how long does closing take?

python benchmarks/storing.py [--quick]

Beside ours, the values alone of the first two keys by xz -9, their bytes shuffled: slow, but about
as small as they get.
"""

import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from measuring import begin, folder, seconds, show
from numpy.typing import NDArray

from flexrec.recorder import Recorder

Curves = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""From steps (n, 1) and normal noise (n, keys) to values (n, keys)."""

_XZ = 100_000  # values that are given to it


def falling(steps: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a loss looks like, with noise in all of its 52 bits."""
    return (1 + 0.1 * noise) / (1 + 1e-3 * steps)


def float32(steps: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same, out of float32 arithmetic: what a network's losses and statistics are."""
    return falling(steps, noise).astype(np.float32).astype(np.float64)


def accuracy(steps: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of 1000 samples."""
    return np.clip(np.round(1000 - 900 * falling(steps, noise)), 0, 1000) / 1000


def averages(count: int) -> Curves:
    """Averages of so many losses that are out of float32 arithmetic."""

    def curves(steps: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
        rng = np.random.default_rng(int(steps[0, 0]))
        losses = (float32(steps, rng.normal(size=noise.shape)) for _ in range(count))
        return sum(losses, np.zeros(noise.shape)) / count

    return curves


def with_rate(steps: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """A loss out of float32 arithmetic, and a learning rate that falls by a cosine."""
    values = float32(steps, noise)
    values[:, 1:] = 5e-4 * (1 + np.cos(np.pi * steps / 1e6))
    return values


def main() -> None:
    """Statistics that were born as float32; curves that are float64."""
    quick = begin(__doc__ or "")
    rows = []
    long = 10_000 if quick else 500_000
    pairs = {
        "accuracies": accuracy,
        "losses": float32,
        "a loss and a learning rate": with_rate,
        "averages of 64 losses": averages(64),
        "averages of 100 losses": averages(100),
        "noise in all 52 bits": falling,
    }
    for title, curves, keys, count, mark in (
        ("800 float32-born statistics", float32, 800, 400 if quick else 5000, 3.3),
        ("10 float32-born statistics", float32, 10, 4000 if quick else 200_000, None),
        *((f"two float64 curves: {what}", curves, 2, long, 4.5) for what, curves in pairs.items()),
    ):
        size, closing, parts, least = stored(curves, keys, count)
        each = "  ".join(f"{name} {part:.2f}" for name, part in parts.items())
        scalars = f"{count * keys:,}"
        row = [title, scalars, f"{size:.2f}", mark or "", each, f"{least:.2f}", f"{closing:.2f}"]
        rows.append(row)
    headers = (
        "what",
        "scalars",
        "bytes a scalar",
        "target",
        "of which",
        "values by xz -9",
        "close, s",
    )
    show(rows, *headers)


def stored(curves: Curves, keys: int, count: int) -> tuple[float, float, dict[str, float], float]:
    """Bytes a scalar; seconds to close; the parts of the bytes; bytes of a value by xz."""
    rng = np.random.default_rng(0)
    names = [f"layer{i}/grad_out/mean" for i in range(keys)]
    with folder() as place:
        path = Path(place) / "run.h5"
        rec = Recorder(path, facts=False)
        for first in range(0, count, 1000):
            some = min(1000, count - first)
            steps = first + np.arange(some, dtype=float)[:, None]
            for row in curves(steps, rng.normal(size=(some, keys))).tolist():
                rec.add(dict(zip(names, row, strict=True)))
                rec.step()
        closing = seconds(rec.close)
        total = path.stat().st_size / (keys * count)
        parts = {"value": 0.0, "step": 0.0, "time": 0.0}
        with h5py.File(path) as file:
            table = file.get("tables/0")
            group = table or file[f"series/{names[0]}"]
            for name in ("step", "time"):
                parts[name] = group[name].id.get_storage_size() / (keys * count)
            series = [] if table else [file[f"series/{key}/value"] for key in names]
            for stored in [table["value"]] if table else series:
                parts["value"] += stored.id.get_storage_size() / (keys * count)
            two = table["value"][:2] if table else [stored[:_XZ] for stored in series[:2]]
            least = [by_xz(each) for each in two]
    return total, closing, parts, sum(least) / len(least)


def by_xz(values: NDArray[Any]) -> float:
    """Bytes of a value."""
    shuffled = values.view("u1").reshape(len(values), -1).T.tobytes()
    return len(lzma.compress(shuffled, preset=9)) / len(values)


if __name__ == "__main__":
    main()
