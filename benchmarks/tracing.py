"""What a trace costs: the time of a training step with `watch(trace=True)` over the bare step.

    python benchmarks/tracing.py [--quick] [--wall] [--rounds N] [MODEL ...]

All ways train the same model in turn, some steps at a time, in a random order, so that neither a
machine that slows down nor where a model lies in memory favours any. The first table has medians
over the rounds of each way's time over the bare time of the same round. `watch` without a trace is
among them, since a traced model is watched too, and so is `watch` with an optimizer, whose state
is then measured. The second table has each part's share of what the
trace alone costs: how much of it is saved where this part is left out. The shares need not make 1.
It is CPU time of the training thread, with one thread; --wall gives what a user waits for.
"""

import argparse
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import torch
from measuring import folder, machine, show
from models import TASKS, Task
from torch import nn
from torch.optim import Optimizer

from flexrec.recorder import Recorder
from flexrec.recorder.layers.measuring import measures
from flexrec.recorder.layers.tracing import trace
from flexrec.recorder.layers.tracing.trace import Trace

Step: TypeAlias = Callable[[], object]
Way: TypeAlias = Callable[[nn.Module, Optimizer], AbstractContextManager[Step]]
"""Attaches to a model and its optimizer for a while; gives what to call at the end of a step."""

_KEEP = {"MALLOC_TRIM_THRESHOLD_": str(1 << 33), "MALLOC_MMAP_MAX_": "0"}
WARM, STEPS = (
    1,
    3,
)  # steps before the time is taken, since the first writes texts; and measured ones


def _zero(*_: Any) -> int:
    return 0


def _nothing(*_: Any) -> None:
    return None


def _no_attributes(traced: Any) -> None:
    traced._attributes = {}


PARTS: dict[str, tuple[Any, str, Any]] = {  # what to put in the place of what
    "hashing (CRC-32)": (measures, "crc32", _zero),
    "random states": (trace, "_random_state", _zero),
    "gradients of inputs and outputs": (Trace, "_follow_gradient", _nothing),
    "gradients as they are accumulated": (Trace, "_after_gradient", _nothing),
    "before the optimizer's step": (Trace, "_before_optimizer", _nothing),
    "weights after it": (Trace, "_after_optimizer", _nothing),
    "attributes": (Trace, "_put_attributes", _no_attributes),
}


@contextmanager
def _bare(_: nn.Module, __: Optimizer) -> Iterator[Step]:
    yield lambda: None


def _watched(path: Path, *, traced: bool, stepped: bool = True, every: int = 1) -> Way:
    """`rec.watch`, as a user calls it; with the optimizer if `stepped`."""

    @contextmanager
    def way(model: nn.Module, optimizer: Optimizer) -> Iterator[Step]:
        with Recorder(path, mode="w", facts=False, compress=False) as rec:
            rec.watch(model, trace=traced, optimizer=optimizer if stepped else None, every=every)
            yield rec.step

    return way


def _traced(without: str = "") -> Way:
    """The trace alone, and nothing recorded; without a part of it."""

    @contextmanager
    def way(model: nn.Module, optimizer: Optimizer) -> Iterator[Step]:
        with ExitStack() as stack:
            if without:
                where, name, other = PARTS[without]
                stack.enter_context(mock.patch.object(where, name, other))
            found = Trace(lambda: 0)
            found.watch(model, "", optimizer)
            stack.callback(found.remove)
            yield found.end

    return way


def _ways(place: Path) -> dict[str, tuple[Way, int]]:
    """The ways, and for how many steps a round."""
    return {
        "bare": (_bare, STEPS),
        "bare, again": (_bare, STEPS),  # how far from 1 chance alone gets
        "watch, no trace": (_watched(place / "a.h5", traced=False, stepped=False), STEPS),
        "watch with optimizer, no trace": (_watched(place / "d.h5", traced=False), STEPS),
        "watch with trace, every=1": (_watched(place / "b.h5", traced=True), STEPS),
        "watch with trace, every=10": (_watched(place / "c.h5", traced=True, every=10), 10),
        "the trace alone": (_traced(), STEPS),
        **{part: (_traced(part), STEPS) for part in PARTS},
    }


def measure(
    task: Task, ways: dict[str, tuple[Way, int]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Each way's seconds a step, by round."""
    model = task.model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def train(end: Step) -> None:
        optimizer.zero_grad()
        task.loss(model(task.batch)).backward()
        optimizer.step()
        end()

    def seconds(way: Way, steps: int) -> float:
        with way(model, optimizer) as end:
            for _ in range(WARM):
                train(end)
            begun = clock()
            for _ in range(steps):
                train(end)
            return (clock() - begun) / steps

    order = random.Random(0)  # noqa: S311 - no secret
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in order.sample(list(ways), len(ways)):
            taken = seconds(*ways[name])
            if number:  # the first round warms up
                times[name].append(taken)
    return times


def _over(times: dict[str, list[float]], name: str, other: str = "bare") -> float:
    return statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))


def _share(times: dict[str, list[float]], part: str) -> float:
    """How much of the cost of the trace is saved without a part of it."""
    whole = _over(times, "the trace alone")
    return (whole - _over(times, part)) / (whole - 1)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("models", nargs="*", help=f"out of {', '.join(TASKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="few rounds: does it run at all?")
    parser.add_argument("--wall", action="store_true", help="time by the clock on the wall")
    parser.add_argument("--rounds", type=int, default=60, help="60; a fifth for large models")
    options = parser.parse_args()
    unknown = set(options.models) - set(TASKS)
    if unknown:
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(TASKS)}")
    if not os.environ.keys() >= _KEEP.keys():
        os.execve(sys.executable, sys.orig_argv, os.environ | _KEEP)  # noqa: S606 - ourselves
    warnings.filterwarnings("ignore", ".* of the same keys are all at step")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clock = time.perf_counter if options.wall else time.thread_time
    print(f"## {str(__doc__).splitlines()[0]}")
    print(f"{machine()}; {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}\n", flush=True)
    found: dict[str, dict[str, list[float]]] = {}
    with folder() as place:
        ways = _ways(Path(place))
        for name in options.models or TASKS:
            rounds = max(2, options.rounds // (5 if name in ("ResNet-18", "GPT") else 1))
            found[name] = measure(TASKS[name](), ways, 1 if options.quick else rounds, clock)
    bare = [f"{1e3 * statistics.median(each['bare']):.2f}" for each in found.values()]
    rows = [["bare step, ms", *bare]]
    rows += [
        [way, *(f"{_over(each, way):.2f}" for each in found.values())]
        for way in ways
        if way not in PARTS and way != "bare"
    ]
    show(rows, "over the bare step", *found)
    shares = [[part, *(f"{_share(each, part):.0%}" for each in found.values())] for part in PARTS]
    show(shares, "share of the trace's cost", *found)
    show([["load at the end", f"{os.getloadavg()[0]:.1f}"]], "", "")


if __name__ == "__main__":
    main()
