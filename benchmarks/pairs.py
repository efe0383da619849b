"""What does recording tensors cost on the training thread?

python benchmarks/pairs.py [--quick]
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import begin, bytes_in, folder, interleaved, ratio, seconds, show

from flexrec.recorder import Recorder

SIZES = {(4, 20): 20_000, (256, 1000): 40}


def main() -> None:
    """Pairs of output and target, small and large: whole, and reduced to what a meter keeps."""
    quick = begin(__doc__ or "")
    for shape, count in SIZES.items():
        compare(shape, count // (10 if quick else 1), 2 if quick else 5)


def compare(shape: tuple[int, int], count: int, rounds: int) -> None:
    """All ways, with pairs of one shape."""
    rng = np.random.default_rng(0)
    pair = tuple(rng.normal(size=(2, *shape)).astype("f4"))
    tensors = tuple(map(torch.from_numpy, pair))
    sizes: dict[str, float] = {}

    def recorder(values: object, **options: object) -> Callable[[Path], float]:
        def once(path: Path) -> float:
            with Recorder(path / "run.h5", facts=False, **options) as rec:  # type: ignore[arg-type]

                def work() -> None:
                    for _ in range(count):
                        rec.add(pair=values)

                return seconds(work)

        return once

    def appends(save: Callable[..., object], values: tuple[object, ...]) -> Callable[[Path], float]:
        def once(path: Path) -> float:
            with (path / "saved").open("wb") as file:

                def work() -> None:
                    for _ in range(count):
                        for value in values:
                            save(value, file)

                return seconds(work)

        return once

    def into_file(value: Any, file: Any) -> None:
        np.save(file, value)

    ways = {
        "flexrec, arrays": recorder(pair),
        "flexrec, tensors": recorder(tensors),
        "flexrec, reduced to MSEMeter": recorder(pair, reduce={"pair": "MSEMeter"}),
        "np.save, appended": appends(into_file, pair),
        "torch.save, appended": appends(torch.save, tensors),
    }

    def timed(name: str, way: Callable[[Path], float]) -> Callable[[], float]:
        def once() -> float:
            with folder() as place:
                taken = way(Path(place))
                sizes[name] = bytes_in(Path(place)) / count
            return taken / count * 1e6

        return once

    costs, failed = interleaved({name: timed(name, way) for name, way in ways.items()}, rounds)
    ours = costs["flexrec, arrays"]
    show(
        [
            [name, f"{cost:.1f}", ratio(cost, ours), f"{sizes[name]:.0f}"]
            for name, cost in costs.items()
        ]
        + [[name, "failed", why, ""] for name, why in failed.items()],
        f"pairs of {shape[0]}×{shape[1]} float32",
        "µs a pair",
        "times ours",
        "bytes a pair, closed",
    )


if __name__ == "__main__":
    main()
