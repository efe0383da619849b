"""How often is a run judged wrongly by the spread of its references, and what is found?

    python benchmarks/noise.py [--quick]

Two small models are trained again and again: a CNN with BatchNorm and an LSTM, under four noises.
Under `order` the gradients of three parts of each batch are summed in another order; under `bf16`
there is autocast, and gradients are rounded to bfloat16, up or down at random; under `dropout` the
masks are others; under `scale` all gradients of a step are multiplied by one number, 1 within about
0.001 %, so that all keys move together. A run that is equal but for the noise and is judged to
differ is a false alarm. Changes are planted at a step, and power is how often they are
found. Every draw is some references and one run out of a pool, so draws share runs.
"""

import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain, product
from pathlib import Path
from typing import NamedTuple

import torch
from measuring import begin, folder, show
from torch import Tensor, nn

from flexrec.recorder import Recorder, Recording
from flexrec.replay.diff.noise.alike import is_judged
from flexrec.replay.diff.noise.judge import Judged, judge
from flexrec.replay.diff.run import Column, Run

STEPS, AT, PARTS, BATCH, LR = 90, 40, 3, 24, 0.02
NOISES = ("order", "bf16", "dropout", "scale")
REFERENCES = (2, 3, 5, 10)
SOURCES = ("outputs", "grad_out", "grad_weights", "weights")


class CNN(nn.Module):
    """Two convolutions with BatchNorm, for pictures of 10 by 10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.pool, self.drop, self.head = nn.AvgPool2d(5), nn.Dropout(0.1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        found: Tensor = self.head(self.drop(self.pool(x).flatten(1)))
        return found


class LSTM(nn.Module):
    """An LSTM over sequences of 12 letters, and LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(16, 12), nn.LSTM(12, 16, batch_first=True)
        self.norm2, self.drop, self.head = nn.LayerNorm(16), nn.Dropout(0.1), nn.Linear(16, 4)

    def forward(self, letters: Tensor) -> Tensor:
        x = self.embed(letters)
        with torch.autocast("cpu", enabled=False):  # not every CPU has an LSTM of bfloat16
            x = self.lstm(x)[0][:, -1]
        found: Tensor = self.head(self.drop(self.norm2(x)))
        return found


MODELS: dict[str, type[nn.Module]] = {"CNN": CNN, "LSTM": LSTM}


@cache
def batches(name: str) -> list[tuple[Tensor, Tensor]]:
    """The same batches for every run: inputs, and classes that depend on them."""
    torch.manual_seed(1)
    shape = (STEPS, BATCH, 1, 10, 10)
    found = torch.randn(shape) if name == "CNN" else torch.randint(16, (STEPS, BATCH, 12))
    hidden = found.float().flatten(2) @ torch.randn(found[0, 0].numel(), 4)
    return list(zip(found, (hidden + torch.randn_like(hidden)).argmax(-1), strict=True))


Change = Callable[[nn.Module, torch.optim.Optimizer], object]


def _set(name: str, value: float, layer: str | None = None) -> Change:
    """A change of an attribute of a layer, or else of the optimizer's group."""

    def change(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if layer is None:
            optimizer.param_groups[0][name] = value
        else:
            setattr(model.get_submodule(layer), name, value)

    return change


def _scaled(model: nn.Module, _: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        model.get_parameter("head.weight").mul_(1.02)


class Planted(NamedTuple):
    """A change at step `AT`, and what is right: the stages and the layer that are named first."""

    change: Change | None
    stages: tuple[str, ...] = ()
    layer: str | None = None
    batch: Callable[[int], int] = int


CHANGES = {
    "lr x1.02": Planted(_set("lr", 1.02 * LR), ("optimizer", "weights")),
    "lr x1.5": Planted(_set("lr", 1.5 * LR), ("optimizer", "weights")),
    "weight decay lost": Planted(_set("weight_decay", 0.0), ("optimizer", "weights")),
    "eps of a norm": Planted(_set("eps", 2e-3, "norm2"), ("forward",), "norm2"),
    "dropout .1 -> .12": Planted(_set("p", 0.12, "drop"), ("forward",), "drop"),
    "dropout .1 -> .3": Planted(_set("p", 0.3, "drop"), ("forward",), "drop"),
    "head x1.02": Planted(_scaled, ("forward",), "head"),
    "a bad batch": Planted(None, batch=lambda step: 0 if step == AT else step),
    "other order of data": Planted(None, batch=lambda i: i if i < AT else STEPS + AT - 1 - i),
}


class Held(Run):
    """A run whose numbers are in memory."""

    def __init__(self, path: Path) -> None:
        with Recording(path) as recording:
            super().__init__(path.stem, [recording])
            self.keys = [key for key in self if is_judged(key, [self])]
            self._held = {
                key: Column(c.step.copy(), c.value.copy())
                for key, c in super().numbers(self.keys).items()
            }
        step = self._held[self.keys[0]].step
        self._held = {key: Column(step, column.value) for key, column in self._held.items()}

    def numbers(self, keys: Sequence[str]) -> dict[str, Column]:
        """The columns of several keys."""
        return {key: self._held[key] for key in keys}


def main() -> None:
    """Train, judge, and print the tables."""
    quick = begin(__doc__ or "")
    torch.set_num_threads(1)
    equal, changed, draws = (12, 1, 20) if quick else (20, 2, 100)
    alarms, found = [], defaultdict[tuple[str, int], list[Sequence[Judged]]](list)
    for model, noise in product(MODELS, NOISES):
        with folder() as place:
            pool = [train(Path(place), model, noise, seed) for seed in range(equal)]
            for alone in (False, True):
                cell = f"{model}, {noise}" + (", the loss alone" if alone else "")
                alarms.append([cell, *(false_alarms(pool, n, draws, alone) for n in REFERENCES)])
            for name, planted in CHANGES.items():
                runs = [train(Path(place), model, noise, 100 + i, planted) for i in range(changed)]
                for n in REFERENCES:
                    found[name, n].append(judged(pool, runs, n, draws // 5))
    cells = [f"{model} {noise}" for model, noise in product(MODELS, NOISES)]
    heads = [f"{count} references" for count in REFERENCES]
    print(f"False alarms of {draws} draws from {equal} runs that are equal but for the noise\n")
    show(alarms, "model, noise", *heads)
    print(
        f"Found, % of the draws, of {changed} runs each, with "
        f"{' / '.join(map(str, REFERENCES))} references\n"
    )
    show(
        (
            [
                name,
                *(
                    " / ".join(share(found[name, n][i]) for n in REFERENCES)
                    for i in range(len(cells))
                ),
            ]
            for name in CHANGES
        ),
        "planted at step 40",
        *cells,
    )
    print("Where it began, of the draws in which it was found")
    show(
        (
            named(
                name,
                planted,
                list(chain.from_iterable(chain.from_iterable(found[name, n] for n in REFERENCES))),
            )
            for name, planted in CHANGES.items()
        ),
        "planted at step 40",
        "found",
        "stage right",
        "layer right",
        "a wrong layer, alone",
        "since: steps off, median",
        "certain: steps later, median",
    )


def train(folder: Path, name: str, noise: str, seed: int, planted: Planted | None = None) -> Held:
    """Train a model, record it, and read what was recorded."""
    path = folder / f"{noise}-{seed}-{len(list(folder.iterdir()))}.h5"
    order = random.Random(seed)  # noqa: S311 - no secret
    torch.manual_seed(0)
    model, data = MODELS[name](), batches(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=1e-2)
    with Recorder(path, facts=False) as rec:
        rec.watch(model, sources=SOURCES)
        for step in range(STEPS):
            if planted and planted.change and step == AT:
                planted.change(model, optimizer)
            x, y = data[planted.batch(step) if planted else step]
            parts = list(enumerate(zip(x.chunk(PARTS), y.chunk(PARTS), strict=True)))
            if noise in ("order", "bf16"):
                order.shuffle(parts)
            optimizer.zero_grad()
            total = 0.0
            for part, (given, wanted) in parts:
                torch.manual_seed(step * PARTS + part + (noise == "dropout") * 10_000 * (1 + seed))
                with torch.autocast("cpu", torch.bfloat16, enabled=noise == "bf16"):
                    loss = nn.functional.cross_entropy(model(given), wanted) / PARTS
                loss.backward()
                total += float(loss)
            if noise == "bf16":
                torch.manual_seed(10_000 * (1 + seed) + step)
                for parameter in model.parameters():
                    _round(parameter.grad)
            if noise == "scale":
                factor = 1 + 1e-5 * order.gauss(0, 1)
                for parameter in model.parameters():
                    _multiply(parameter.grad, factor)
            optimizer.step()
            rec.add(train_loss=total)
            rec.step()
    return Held(path)


def _multiply(gradient: Tensor | None, factor: float) -> None:
    if gradient is not None:
        gradient.mul_(factor)


def _round(gradient: Tensor | None) -> None:
    """Round up or down to a bfloat16, at random."""
    if gradient is not None:
        bits = gradient.view(torch.int32)
        bits.add_(torch.randint_like(bits, 1 << 16)).bitwise_and_(-(1 << 16))


def judged(pool: Sequence[Held], runs: Sequence[Held], count: int, draws: int) -> list[Judged]:
    """Judge each run by as many draws of references."""
    chance = random.Random(count)  # noqa: S311 - no secret
    found = []
    for run, _ in product(runs, range(draws)):
        first, *others = chance.sample(pool, count)
        found.append(judge(first, run, others, run.keys))
    return found


def false_alarms(pool: Sequence[Held], count: int, draws: int, alone: bool) -> int:
    """How many of the draws of references and another run of the pool are judged to differ."""
    chance = random.Random(count)  # noqa: S311 - no secret
    found = 0
    for _ in range(draws):
        run, first, *others = chance.sample(pool, count + 1)
        keys = ["train_loss"] if alone else run.keys
        found += judge(first, run, others, keys).since is not None
    return found


def share(found: Sequence[Judged]) -> str:
    """How many of a hundred were found."""
    return f"{100 * sum(each.since is not None for each in found) / len(found):.0f}"


def named(name: str, planted: Planted, every: Sequence[Judged]) -> list[object]:
    """How right the step, stage and layer are, where a change was found."""
    found = [each for each in every if each.since is not None and each.first is not None]
    firsts = [each.first for each in found if each.first is not None]
    if not found:
        return [name, 0]
    stage = sum(first.stage in planted.stages for first in firsts)
    layer = sum(first.layer == planted.layer or planted.layer in first.one_of for first in firsts)
    wrong = sum(first.layer not in (None, planted.layer) and not first.one_of for first in firsts)
    since = statistics.median((each.since or 0) - AT for each in found)
    certain = statistics.median((each.seen or 0) - AT for each in found)
    asked = bool(planted.stages)
    return [
        name,
        len(found),
        f"{100 * stage / len(found):.0f} %" if asked else "",
        f"{100 * layer / len(found):.0f} %" if asked else "",
        f"{100 * wrong / len(found):.0f} %" if asked else "",
        f"{since:g}",
        f"{certain:g}",
    ]


if __name__ == "__main__":
    main()
