"""What TooledModel costs: the time of a training step with it over the time without.

    python benchmarks/tooled_model.py [--quick] [--wall] [--threads N] [--rounds N] [MODEL ...]

All ways train the same model in turn, some steps at a time, so that neither a machine that slows
down nor where a model lies in memory favours any. The table shows medians over the rounds of each
way's time over the bare time of the same round, the ways in a random order, and where another set
of rounds would put them (95 %). It is CPU time of the training thread, which other work disturbs
least: what the peers do in threads and processes of their own is left out. --wall gives what a user
waits for.
wandb.watch and TensorBoard take part where they are installed: `suite.py tooled_model`.

glibc's malloc is told to keep freed memory. By default it gives large blocks back to the system
and takes them again, or does not, depending on where a few small objects happen to lie: that
alone makes a LeNet's step between 10 % quicker and 20 % slower, from one process to the next.
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
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import torch
from measuring import folder, machine, show
from models import TASKS, Task
from torch import Tensor, nn

from flexrec.recorder import TooledModel

Step: TypeAlias = Callable[[], object]
"""What to call at the end of a training step."""
Way: TypeAlias = Callable[[nn.Module], AbstractContextManager[Step]]
"""Attaches to a model for a while."""

_KEEP = {"MALLOC_TRIM_THRESHOLD_": str(1 << 33), "MALLOC_MMAP_MAX_": "0"}
_PEERS = {"wandb.watch": "wandb", "TensorBoard histograms": "tensorboard"}


class _NaiveHooks:
    """Full backward hooks, forward hooks, and torch's mean and std: the way that comes to mind."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.values: dict[str, float] = {}
        self.handles = [
            handle
            for name, module in model.named_modules()
            if not list(module.children())
            for handle in (
                module.register_forward_hook(self._forward(name)),
                module.register_full_backward_hook(self._backward(name)),
            )
        ]

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

    def step(self) -> None:
        for name, parameter in self.model.named_parameters():
            self._take(f"{name}/weights", [parameter.detach()])


@contextmanager
def _bare(_: nn.Module) -> Iterator[Step]:
    yield lambda: None


@contextmanager
def _naive(model: nn.Module) -> Iterator[Step]:
    hooks = _NaiveHooks(model)
    yield hooks.step
    for handle in hooks.handles:
        handle.remove()


def _ours(every: int, before: int = 0) -> Way:
    """TooledModel, after so many steps."""

    @contextmanager
    def way(model: nn.Module) -> Iterator[Step]:
        with TooledModel(model, every=every) as tooled:
            for _ in range(before):
                tooled.step()
            yield tooled.step

    return way


def _wandb(place: Path, stack: ExitStack) -> Way:
    """Parameters and gradients, at every step, offline."""
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    run = wandb.init(mode="offline", dir=str(place), project="bench", settings=settings)
    stack.callback(run.finish)

    @contextmanager
    def way(model: nn.Module) -> Iterator[Step]:
        run.watch(model, log="all", log_freq=1)
        yield lambda: run.log({"step": 0.0})
        run.unwatch(model)

    return way


def _tensorboard(place: Path, stack: ExitStack) -> Way:
    """Parameters and gradients, at every step."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(place))
    stack.callback(writer.close)

    def step(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            writer.add_histogram(f"{name}/weights", parameter)
            writer.add_histogram(f"{name}/gradients", parameter.grad)

    @contextmanager
    def way(model: nn.Module) -> Iterator[Step]:
        yield lambda: step(model)
        writer.flush()  # its thread would take the next way's time

    return way


def _ways(place: Path, stack: ExitStack) -> dict[str, tuple[Way, int]]:
    """Every way that is installed, and for how many steps a round."""
    ways: dict[str, tuple[Way, int]] = {
        "bare": (_bare, 5),
        "bare, again": (_bare, 5),  # how far from 1 chance alone gets
        "every=1": (_ours(1), 5),
        "every=10": (_ours(10), 10),
        "unarmed": (_ours(1 << 60, before=1), 5),
        "naive hooks": (_naive, 3),
    }
    makers = {"wandb.watch": _wandb, "TensorBoard histograms": _tensorboard}
    for name, package in _PEERS.items():
        if find_spec(package):
            ways[name] = makers[name](place, stack), 2
    return ways


def measure(
    task: Task, ways: dict[str, tuple[Way, int]], rounds: int, clock: Callable[[], float]
) -> dict[str, str]:
    """Each way's time over the bare one's, and that in milliseconds as "bare"."""
    model = task.model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def seconds(way: Way, steps: int) -> float:
        with way(model) as end:
            begun = clock()
            for _ in range(steps):
                optimizer.zero_grad()
                task.loss(model(task.batch)).backward()
                optimizer.step()
                end()
            return (clock() - begun) / steps

    order = random.Random(0)  # noqa: S311 - no secret
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in order.sample(list(ways), len(ways)):
            taken = seconds(*ways[name])
            if number:  # the first round warms up
                times[name].append(taken)
    found = {
        name: _median([a / b for a, b in zip(times[name], times["bare"], strict=True)])
        for name in ways
    }
    return found | {"bare": f"{1e3 * statistics.median(times['bare']):.2f}"}


def _median(values: list[float]) -> str:
    """The median, and between which of the values that of all rounds there could be is (95 %)."""
    ordered = sorted(values)
    low = max(0, round(len(ordered) / 2 - 0.98 * len(ordered) ** 0.5) - 1)
    return f"{statistics.median(ordered):.2f} ({ordered[low]:.2f} to {ordered[-1 - low]:.2f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("models", nargs="*", help=f"out of {', '.join(TASKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="few rounds: does it run at all?")
    parser.add_argument("--wall", action="store_true", help="time by the clock on the wall")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (1)")
    parser.add_argument("--rounds", type=int, help="default: 200, for ResNet-18 and GPT 15")
    options = parser.parse_args()
    unknown = set(options.models) - set(TASKS)
    if unknown:
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(TASKS)}")
    if not os.environ.keys() >= _KEEP.keys():
        os.execve(sys.executable, sys.orig_argv, os.environ | _KEEP)  # noqa: S606 - ourselves
    warnings.filterwarnings("ignore", "Full backward hook is firing")  # the naive way's first layer
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    of_thread = time.thread_time if options.threads == 1 else time.process_time
    clock = time.perf_counter if options.wall else of_thread
    print(f"## {str(__doc__).splitlines()[0]}")
    print(f"{machine()}; {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}\n", flush=True)
    found: dict[str, dict[str, str]] = {}
    with folder() as place, ExitStack() as stack:
        ways = _ways(Path(place), stack)
        for name in options.models or TASKS:
            slow = name in ("ResNet-18", "GPT")
            rounds = options.rounds or (1 if options.quick else 15 if slow else 200)
            found[name] = measure(TASKS[name](), ways, rounds, clock)
    rows = [
        [
            "bare step, ms" if way == "bare" else way,
            *(each[way] for each in found.values()),
        ]
        for way in ways
    ]
    rows += [[name, *["not installed"] * len(found)] for name in _PEERS if name not in ways]
    show(rows, "", *found)


if __name__ == "__main__":
    main()
