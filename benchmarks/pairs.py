"""What does recording tensors cost on the training thread?

python benchmarks/pairs.py [--quick]
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import begin, bytes_in, compute, folder, interleaved, ratio, seconds, show

from flexrec.recorder import Recorder

SIZES = {(4, 20): 20_000, (256, 1000): 40}
PACE = 5e-3  # seconds of a training step, where there is one between the pairs


def main() -> None:
    """Pairs of output and target, small and large: whole, and reduced to what a meter keeps."""
    quick = begin(__doc__ or "")
    for shape, count in SIZES.items():
        compare(shape, count // (10 if quick else 1), 2 if quick else 15)
    # Back to back, memory that is new each time is most of the cost; a run uses it again.
    compare((256, 1000), 20 if quick else 200, 2 if quick else 5, pace=PACE)


def compare(shape: tuple[int, int], count: int, rounds: int, *, pace: float = 0) -> None:
    """All ways, with pairs of one shape, and so many seconds of computing before each."""
    rng = np.random.default_rng(0)
    pair = tuple(rng.normal(size=(2, *shape)).astype("f4"))
    tensors = tuple(map(torch.from_numpy, pair))
    sizes: dict[str, float] = {}

    def timed(add: Callable[[], object]) -> float:
        if not pace:
            return seconds(lambda: [add() for _ in range(count)])
        total = 0.0
        for _ in range(count):
            compute(pace)
            total += seconds(add)
        return total

    def recorder(values: object, **options: Any) -> Callable[[Path], float]:
        def once(path: Path) -> float:
            with Recorder(path / "run.h5", facts=False, **options) as rec:
                return timed(lambda: rec.add(pair=values))

        return once

    def thrice(path: Path) -> float:
        with Recorder(path / "run.h5", facts=False) as rec:
            return timed(lambda: rec.add(mse=pair, accuracy=pair, confusion=pair))

    def appends(save: Callable[..., object], values: tuple[object, ...]) -> Callable[[Path], float]:
        def once(path: Path) -> float:
            with (path / "saved").open("wb") as file:
                return timed(lambda: [save(value, file) for value in values])

        return once

    def into_file(value: Any, file: Any) -> None:
        np.save(file, value)

    ways = {
        "flexrec, arrays": recorder(pair),
        "flexrec, tensors": recorder(tensors),
        "flexrec, arrays, for three meters": thrice,
        "flexrec, reduced to MSEMeter": recorder(pair, reduce={"pair": "MSEMeter"}),
        "np.save, appended": appends(into_file, pair),
        "torch.save, appended": appends(torch.save, tensors),
    }

    def cost(name: str, way: Callable[[Path], float]) -> Callable[[], float]:
        def once() -> float:
            with folder() as place:
                taken = way(Path(place))
                sizes[name] = bytes_in(Path(place)) / count
            return taken / count * 1e6

        return once

    costs, failed = interleaved({name: cost(name, way) for name, way in ways.items()}, rounds)
    ours = costs["flexrec, arrays"]
    show(
        [
            [name, f"{each:.1f}", ratio(each, ours), f"{sizes[name]:.0f}"]
            for name, each in costs.items()
        ]
        + [[name, "failed", why, ""] for name, why in failed.items()],
        f"pairs of {shape[0]}×{shape[1]} float32"
        + (f", one each {pace * 1e3:g} ms of computing" if pace else ", back to back"),
        "µs a pair",
        "times ours",
        "bytes a pair, closed",
    )


if __name__ == "__main__":
    main()
