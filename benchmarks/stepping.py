"""What does recording 800 statistics at every training step cost, and how long is a pause?

python benchmarks/stepping.py [--quick]
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from measuring import begin, compute, folder, interleaved, ratio, show
from tools import FAST, SLOW, Dicts, Tool

from flexrec.recorder import Recorder

STEP = 4e-3  # seconds of a training step
NAMES = [f"layer{i}/grad_out/mean" for i in range(800)]


def main() -> None:
    """A step that computes for four milliseconds, bare and recorded; then an hour's adds."""
    quick = begin(__doc__ or "")
    ratios(50 if quick else 500, 2 if quick else 5)
    pauses(20_000 if quick else 900_000)
    peers_pauses(500 if quick else 20_000, 50 if quick else 1_000)


def ratios(steps: int, rounds: int) -> None:
    """How many times as long steps take when each records 800 statistics."""
    dicts = [
        dict(zip(NAMES, row, strict=True))
        for row in np.random.default_rng(0).normal(size=(steps, 800)).tolist()
    ]

    class Training:
        """Dicts that take a step's computing to come by."""

        def __init__(self, some: list[dict[str, float]]) -> None:
            self.some = some

        def __getitem__(self, i: int) -> dict[str, float]:
            return self.some[i]

        def __iter__(self) -> Iterator[dict[str, float]]:
            for values in self.some:
                compute(STEP)
                yield values

    def run(tool: Tool, some: list[dict[str, float]]) -> Callable[[], float]:
        def once() -> float:
            with folder() as place:
                return tool(Path(place), Training(some)) / len(some)

        return once

    def bare(_: Path, dicts: Dicts) -> float:
        start = time.perf_counter()
        for _values in dicts:
            pass
        return time.perf_counter() - start

    few = dicts[: max(10, steps // 20)]
    tools = {"bare": run(bare, dicts)}
    tools |= {name: run(tool, dicts) for name, tool in FAST.items()}
    taken, failed = interleaved(tools | {n: run(tool, few) for n, tool in SLOW.items()}, rounds)
    show(
        [[name, f"{each * 1e3:.2f}", ratio(each, taken["bare"])] for name, each in taken.items()]
        + [[name, "failed", why] for name, why in failed.items()],
        "a step of 4 ms with 800 statistics",
        "ms",
        "of bare",
    )


def pauses(steps: int) -> None:
    """The longest calls of `add` and `step`: an hour of 4 ms steps, without the computing.

    Beside them the longest gaps of a loop that does nothing: what the machine itself makes wait.
    """
    values = dict.fromkeys(NAMES[:100], 0.5)
    taken, own, idle = np.empty(steps), np.empty(steps), np.empty(steps)
    with folder() as place, Recorder(Path(place) / "run.h5", facts=False) as rec:
        for i in range(steps):
            start, began = time.perf_counter(), time.thread_time()
            rec.add(values)
            rec.step()
            taken[i], own[i] = time.perf_counter() - start, time.thread_time() - began
            start = time.perf_counter()
            while time.perf_counter() - start < 20e-6:  # let the writer have its turn
                pass
    for i in range(steps):
        start = time.perf_counter()
        while time.perf_counter() - start < 30e-6:
            pass
        idle[i] = time.perf_counter() - start
    show(
        [
            [name, *(f"{q * 1e3:.3f}" for q in np.quantile(each, (0.5, 0.99, 0.9999, 1)))]
            for name, each in (
                ("add and step, wall time", taken),
                ("add and step, the thread's processor time", own),
                ("30 µs of doing nothing, wall time", idle),
            )
        ],
        f"{steps:,} steps of 100 statistics",
        "median, ms",
        "99 %",
        "99.99 %",
        "longest",
    )


class Timed:
    """The same dict again and again; how long each was worked on, in seconds."""

    def __init__(self, values: dict[str, float], steps: int) -> None:
        self._values, self.taken = values, np.empty(steps)

    def __getitem__(self, _: int) -> dict[str, float]:
        return self._values

    def __iter__(self) -> Iterator[dict[str, float]]:
        for i in range(len(self.taken)):
            start = time.perf_counter()
            yield self._values
            self.taken[i] = time.perf_counter() - start


def peers_pauses(steps: int, few: int) -> None:
    """The longest that each tool takes for a step; the slow ones are given fewer of them."""
    values = dict.fromkeys(NAMES[:100], 0.5)
    rows = []
    for name, tool in (FAST | SLOW).items():
        timed = Timed(values, few if name in SLOW else steps)
        try:
            with folder() as place:
                tool(Path(place), timed)
        except Exception as error:  # noqa: BLE001 - a peer that fails is reported as such
            rows.append([name, "", "failed", f"{error}"[:60], ""])
            continue
        found = np.quantile(timed.taken, (0.5, 0.99, 1))
        rows.append([name, f"{len(timed.taken):,}", *(f"{each * 1e3:.3f}" for each in found)])
    show(rows, "100 statistics a step, one after another", "steps", "median, ms", "99 %", "longest")


if __name__ == "__main__":
    main()
