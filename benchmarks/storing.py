"""How many bytes does a scalar take in a closed file, and how long does closing take?

python benchmarks/storing.py [--quick]
"""

from pathlib import Path

import h5py
import numpy as np
from measuring import begin, folder, seconds, show

from flexrec.recorder import Recorder


def main() -> None:
    """Statistics that were born as float32; curves that are float64 in every bit."""
    quick = begin(__doc__ or "")
    rows = []
    for title, keys, count, dtype, mark in (
        ("800 float32-born statistics", 800, 400 if quick else 5000, "f4", 3.3),
        ("10 float32-born statistics", 10, 4000 if quick else 200_000, "f4", None),
        ("two float64 curves", 2, 10_000 if quick else 500_000, "f8", 4.5),
        ("two float32-born curves", 2, 10_000 if quick else 500_000, "f4", None),
    ):
        size, closing, parts = stored(keys, count, dtype)
        each = "  ".join(f"{name} {part:.2f}" for name, part in parts.items())
        rows.append([title, count * keys, f"{size:.2f}", mark or "", each, f"{closing:.2f}"])
    show(rows, "what", "scalars", "bytes a scalar", "mark", "of which", "close, s")


def stored(keys: int, count: int, dtype: str) -> tuple[float, float, dict[str, float]]:
    """Bytes a scalar; seconds to close; the parts of the bytes."""
    rng = np.random.default_rng(0)
    names = [f"layer{i}/grad_out/mean" for i in range(keys)]
    with folder() as place:
        path = Path(place) / "run.h5"
        rec = Recorder(path, facts=False)
        for first in range(0, count, 1000):
            # A curve that falls, with noise: what a loss looks like.
            some = min(1000, count - first)
            values = 1 / (1 + 1e-3 * (first + np.arange(some)))[:, None]
            values = (values * (1 + 0.1 * rng.normal(size=(some, keys)))).astype(dtype)
            for row in values.astype(float).tolist():
                rec.add(dict(zip(names, row, strict=True)))
                rec.step()
        closing = seconds(rec.close)
        total = path.stat().st_size / (keys * count)
        parts = {"value": 0.0, "step": 0.0, "time": 0.0}
        with h5py.File(path) as file:
            first_key = file[f"series/{names[0]}"]
            for name in ("step", "time"):
                parts[name] = first_key[name].id.get_storage_size() / (keys * count)
            for key in names:
                value = file[f"series/{key}/value"]
                parts["value"] += value.id.get_storage_size() / (keys * count)
    return total, closing, parts


if __name__ == "__main__":
    main()
