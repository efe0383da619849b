"""What does a scalar cost on the training thread, and in the file?

python benchmarks/adding.py [--quick]
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measuring import begin, bytes_in, folder, interleaved, ratio, show

from tools import FAST, SLOW, Dicts, Tool

SIZES = {2: 100_000, 10: 40_000, 800: 1000}  # keys of a dict, dicts
SLOW_SCALARS = 8000  # for tools that take tens of microseconds each


def main() -> None:
    """A table for floats, and one for 0-d tensors."""
    quick = begin(__doc__ or "")
    rounds, shrink = (2, 10) if quick else (7, 1)
    for kind in ("floats", "0-d tensors"):
        for keys, count in SIZES.items():
            # Tensors take an object each: a third of the dicts are enough.
            few = count // shrink // (1 if kind == "floats" else 3)
            compare(kind, keys, max(20, few), rounds)


def compare(kind: str, keys: int, count: int, rounds: int) -> None:
    """All tools on dicts of one size."""
    dicts = made(kind, keys, count)
    sizes: dict[str, float] = {}

    def run(name: str, tool: Tool, some: Dicts) -> Callable[[], float]:
        def once() -> float:
            with folder() as place:
                taken = tool(Path(place), some)
                sizes[name] = bytes_in(Path(place)) / (len(some) * keys)
            return taken / (len(some) * keys) * 1e6

        return once

    tools = {name: run(name, tool, dicts) for name, tool in FAST.items()}
    few = dicts[: max(5, min(count // 10, SLOW_SCALARS // keys))]
    costs, failed = interleaved(tools | {n: run(n, tool, few) for n, tool in SLOW.items()}, rounds)
    ours = costs["flexrec"]
    show(
        [
            [name, f"{cost:.3f}", ratio(cost, ours), f"{sizes[name]:.1f}" if sizes[name] else ""]
            for name, cost in sorted(costs.items(), key=lambda item: item[1])
        ]
        + [[name, "failed", why, ""] for name, why in failed.items()],
        f"{keys} {kind} a dict",
        "µs a scalar",
        "times ours",
        "bytes a scalar, closed",
    )


def made(kind: str, keys: int, count: int) -> Dicts:
    """Dicts of float32-born statistics."""
    names = [f"layer{i}/grad_out/mean" for i in range(keys)]
    values = np.random.default_rng(0).normal(size=(count, keys)).astype("f4")
    if kind == "floats":
        return [dict(zip(names, row, strict=True)) for row in values.astype(float).tolist()]
    return [dict(zip(names, torch.from_numpy(row).clone().unbind(), strict=True)) for row in values]


if __name__ == "__main__":
    main()
