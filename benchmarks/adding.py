"""What does a scalar cost on the training thread, and in the file?

python benchmarks/adding.py [--quick]
"""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import begin, bytes_in, folder, interleaved, ratio, show
from tools import FAST, SLOW, Tool

SIZES = {2: 100_000, 10: 40_000, 800: 1000}  # keys of a dict, dicts
SLOW_SCALARS = 8000  # for tools that take tens of microseconds each
AT_ONCE = 100  # scalars that are made at a time, or a dict of more


def main() -> None:
    """A table for floats, and one for 0-d tensors."""
    quick = begin(__doc__ or "")
    rounds, shrink = (2, 10) if quick else (7, 1)
    for kind in ("floats", "0-d tensors"):
        for keys, count in SIZES.items():
            compare(kind, keys, max(20, count // shrink), rounds)


def compare(kind: str, keys: int, count: int, rounds: int) -> None:
    """All tools on dicts of one size."""
    sizes: dict[str, float] = {}

    def run(name: str, tool: Tool, count: int) -> Callable[[], float]:
        def once() -> float:
            steps = Steps(kind, keys, count)
            with folder() as place:
                taken = tool(Path(place), steps) - steps.making
                sizes[name] = bytes_in(Path(place)) / (count * keys)
            return taken / (count * keys) * 1e6

        return once

    tools = {name: run(name, tool, count) for name, tool in FAST.items()}
    few = max(5, min(count // 10, SLOW_SCALARS // keys))
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


class Steps:
    """Dicts of float32-born statistics, one a step, made a few before they are asked for.

    What is recorded was computed in the same step, and is in the processor's cache: dicts that were
    all made beforehand would have each tool wait for memory.

    Attributes:
        making: seconds that making them took, and letting go of them.
    """

    def __init__(self, kind: str, keys: int, count: int) -> None:
        self.making = 0.0
        self._kind, self._count = kind, count
        self._names = [f"layer{i}/grad_out/mean" for i in range(keys)]

    def __getitem__(self, _: int) -> Mapping[str, Any]:
        return dict.fromkeys(self._names, 0.5)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return chain.from_iterable(self._some())

    def _some(self) -> Iterator[list[dict[str, Any]]]:
        rng = np.random.default_rng(0)
        start = time.perf_counter()
        at_once = max(1, AT_ONCE // len(self._names))
        kept: list[list[dict[str, Any]]] = [[], []]
        for first in range(0, self._count, at_once):
            count = min(at_once, self._count - first)
            rows = rng.normal(size=(count, len(self._names))).astype("f4")
            dicts = [dict(zip(self._names, row, strict=True)) for row in self._values(rows)]
            kept = [kept[1], dicts]  # those before the last go now, and not while a tool works
            self.making += time.perf_counter() - start
            yield dicts
            start = time.perf_counter()

    def _values(self, rows: Any) -> Any:
        if self._kind == "floats":
            return rows.astype(float).tolist()
        return [torch.from_numpy(row).unbind() for row in rows]


if __name__ == "__main__":
    main()
