"""What TooledModel costs: the time of a training step with it over the time without.

    python benchmarks/tooled_model.py [--quick] [--wall] [--threads N] [MODEL ...]

Every way of training is run in turn, ten steps at a time, on its own copy of the model, so that
a machine that slows down slows them all. The table shows medians over the rounds of each way's
time over the bare time of the same round. It is CPU time, which other processes disturb least;
--wall gives what a user waits for.
"""

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from models import TASKS, Task
from tabulate import tabulate
from torch import Tensor, nn

from flexrec.recorder import TooledModel

_STEPS = 10


class _NaiveHooks:
    """Full backward hooks, forward hooks, and torch's mean and std: the way that comes to mind."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.values: dict[str, float] = {}
        for name, module in model.named_modules():
            if not list(module.children()):
                module.register_forward_hook(self._forward(name))
                module.register_full_backward_hook(self._backward(name))

    def _forward(self, name: str) -> Callable[..., None]:
        return lambda _module, inputs, _output: self._take(f"{name}/inputs", inputs)

    def _backward(self, name: str) -> Callable[..., None]:
        def take(_module: nn.Module, grad_in: Any, grad_out: Any) -> None:
            self._take(f"{name}/grad_in", grad_in)
            self._take(f"{name}/grad_out", grad_out)

        return take

    def _take(self, key: str, tensors: Any) -> None:
        for tensor in tensors:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.values[f"{key}/mean"] = tensor.mean().item()
                self.values[f"{key}/std"] = tensor.std().item()

    def step(self) -> dict[str, float]:
        for name, parameter in self.model.named_parameters():
            self._take(f"{name}/weights", [parameter.detach()])
        return self.values


def _training(task: Task, tool: Callable[[nn.Module], Any] | None) -> Callable[[], None]:
    """A function that trains a copy of the model for one step."""
    model = copy.deepcopy(task.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    tooled = tool(model) if tool else None

    def step() -> None:
        optimizer.zero_grad()
        task.loss(model(task.batch)).backward()
        optimizer.step()
        if tooled is not None:
            tooled.step()

    return step


WAYS: dict[str, Callable[[nn.Module], Any] | None] = {
    "bare": None,
    "naive hooks": _NaiveHooks,
    "every=1": TooledModel,
    "every=10": lambda model: TooledModel(model, every=10),
    "unarmed": lambda model: TooledModel(model, every=1 << 60),
}


def _seconds(step: Callable[[], None], clock: Callable[[], float]) -> float:
    begun = clock()
    for _ in range(_STEPS):
        step()
    return (clock() - begun) / _STEPS


def measure(task: Task, rounds: int, clock: Callable[[], float]) -> tuple[float, dict[str, float]]:
    """The bare step's median seconds, and each way's median time over it."""
    trainings = {name: _training(task, tool) for name, tool in WAYS.items()}
    times: dict[str, list[float]] = {name: [] for name in trainings}
    for number in range(rounds + 1):
        shift = number % len(trainings)
        names = list(trainings)
        for name in names[shift:] + names[:shift]:
            seconds = _seconds(trainings[name], clock)
            if number:  # the first round warms up, and holds the unarmed way's armed step
                times[name].append(seconds)
    ratios = {
        name: statistics.median(a / b for a, b in zip(times[name], times["bare"], strict=True))
        for name in trainings
    }
    return statistics.median(times["bare"]), ratios


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("models", nargs="*", help=f"out of {', '.join(TASKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="few rounds: does it run at all?")
    parser.add_argument("--wall", action="store_true", help="time by the clock on the wall")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (1)")
    options = parser.parse_args()
    unknown = set(options.models) - set(TASKS)
    if unknown:
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(TASKS)}")
    warnings.filterwarnings("ignore", "Full backward hook is firing")  # the naive way's first layer
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = time.perf_counter if options.wall else time.process_time
    rows = []
    for name in options.models or TASKS:
        slow = name in ("ResNet-18", "GPT")
        rounds = 2 if options.quick else 9 if slow else 60
        bare, ratios = measure(TASKS[name](), rounds, clock)
        rows.append([name, 1e3 * bare, *(ratios[way] for way in WAYS if way != "bare")])
    headers = ["model", "bare step, ms", *(way for way in WAYS if way != "bare")]
    print(tabulate(rows, headers, floatfmt=".2f"))


if __name__ == "__main__":
    main()
