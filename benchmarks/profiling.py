"""What `stats=("seconds", "bytes")` finds, against torch.profiler; and what it costs.

    python benchmarks/profiling.py [--rounds N] [--threads N] [MODEL ...]

Both measure the same training steps at once, so that what else the machine does meets both.
torch.profiler says what each operation took; an operation counts for the layer in whose
`record_function` it ran, or, in backward, for that of the operation whose sequence number it has.
The table compares each layer's share of the time of all layers, forward and backward together.
Costs are the time of a step with TooledModel over that without, in processor time, medians of
interleaved steps.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from measuring import machine, show
from models import TASKS, Task
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from flexrec.recorder import TooledModel

_MARK = "layer:"


def step(task: Task, optimizer: torch.optim.Optimizer) -> None:
    """One training step."""
    optimizer.zero_grad()
    task.loss(task.model(task.batch)).backward()
    optimizer.step()


@contextmanager
def marked(model: nn.Module, names: list[str]) -> Iterator[None]:
    """While the block runs, each call of a layer is a range that the profiler sees."""
    modules = dict(model.named_modules())
    before = {name: modules[name].forward for name in names}

    def within(name: str) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            with record_function(_MARK + name):
                return before[name](*args, **kwargs)

        return forward

    for name in names:
        modules[name].forward = within(name)
    try:
        yield
    finally:
        for name in names:
            del modules[name].forward


def by_profiler(events: Any) -> dict[str, float]:
    """The microseconds of each layer, from the profiler's events."""
    found: dict[str, float] = defaultdict(float)
    layer_of: dict[int, str] = {}
    for event in events:
        if event.name.startswith(_MARK):
            found[event.name.removeprefix(_MARK)] += event.cpu_time_total
            waiting = list(event.cpu_children)
            while waiting:
                inner = waiting.pop()
                if inner.sequence_nr >= 0 and inner.scope == 0:
                    layer_of.setdefault(inner.sequence_nr, event.name.removeprefix(_MARK))
                waiting += inner.cpu_children
    for event in events:
        if event.scope == 1 and event.sequence_nr in layer_of and not _is_inside(event):
            found[layer_of[event.sequence_nr]] += event.cpu_time_total
    return found


def _is_inside(event: Any) -> bool:
    """Whether it ran within another backward operation."""
    parent = event.cpu_parent
    while parent is not None:
        if parent.scope == 1:
            return True
        parent = parent.cpu_parent
    return False


def by_flexrec(values: dict[str, Any]) -> dict[str, float]:
    """The seconds of each layer, from TooledModel's statistics."""
    found: dict[str, float] = defaultdict(float)
    for key, value in values.items():
        layer, source, name = key.rsplit("/", 2)
        if name == "seconds" and source in ("forward", "backward"):
            found[layer] += float(value)
    return found


def shares(found: dict[str, float], names: list[str]) -> list[float]:
    """Each layer's share of the time of all."""
    whole = sum(found.get(name, 0.0) for name in names)
    return [found.get(name, 0.0) / whole for name in names]


def compared(name: str, rounds: int) -> tuple[str, ...]:
    """A row of the table: how far the shares are apart, and the cost."""
    torch.manual_seed(0)
    task = TASKS[name]()
    optimizer = torch.optim.SGD(task.model.parameters(), lr=1e-3)
    with TooledModel(task.model, stats="seconds") as tooled:
        names = list(tooled.layers)
    apart, totals, costs = list[list[float]](), list[float](), list[float]()
    for i in range(rounds + 2):
        start = time.process_time()
        step(task, optimizer)
        bare = time.process_time() - start
        with TooledModel(task.model, stats=("seconds", "bytes")) as tooled:
            start = time.process_time()
            step(task, optimizer)
            tooled.step()
            cost = (time.process_time() - start) / bare
        with (
            TooledModel(task.model, stats="seconds") as tooled,
            marked(task.model, names),
            profile(activities=[ProfilerActivity.CPU]) as profiler,
        ):
            step(task, optimizer)
            values = tooled.step()
        if i < 2:  # the first steps are slower
            continue
        ours, theirs = by_flexrec(values), by_profiler(profiler.events())
        pairs = zip(shares(ours, names), shares(theirs, names), strict=True)
        apart.append([abs(one - other) for one, other in pairs])
        totals.append(1e6 * sum(ours.values()) / sum(theirs.values()))
        costs.append(cost)
    medians = [statistics.median(layer) for layer in zip(*apart, strict=True)]
    worst = max(range(len(names)), key=medians.__getitem__)
    return (
        *(name, str(len(names)), f"{100 * statistics.median(medians):.2f}"),
        *(f"{100 * medians[worst]:.2f} ({names[worst]})", f"{statistics.median(totals):.3f}"),
        f"{statistics.median(costs):.2f}",
    )


def main() -> None:
    """Run the comparison and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine())
    rows = [compared(name, options.rounds) for name in options.models]
    show(
        rows,
        *("model", "layers", "shares apart, points: median", "most", "ours / profiler, all layers"),
        "time of a step",
    )


if __name__ == "__main__":
    main()
