"""Small runs of numbers to compare: a layer model of three layers, without torch."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flexrec.recorder import Recorder

LAYERS = ("first", "middle", "last")
SOURCES = ("inputs", "outputs", "grad_out", "grad_in", "grad_weights", "weights")

Step = dict[str, Any]
Bend = Callable[[int, Step], Any]
"""Changes the values of a step in place."""


def values(step: int) -> Step:
    """What a step records: every source of every layer, the rate and the loss."""
    found: Step = {"lr": 0.1}
    for source in SOURCES:
        for i, layer in enumerate(LAYERS):
            found[f"{layer}/{source}/mean"] = step + 0.1 * i
    return {**found, "train_loss": 1.0 / (step + 1)}


def record(
    path: Path,
    bend: Bend | None = None,
    *,
    steps: int = 8,
    every: int = 1,
    **options: Any,
) -> Path:
    """Record a run; layers at one step in so many."""
    with Recorder(path, **{"mode": "w", "facts": False, **options}) as rec:
        for step in range(steps):
            found = values(step)
            if bend is not None:
                bend(step, found)
            alone = {key: value for key, value in found.items() if "/" not in key}
            rec.add(alone)
            if step % every == 0:
                rec.add({key: value for key, value in found.items() if key not in alone})
            rec.step()
    return path


def bent(at: int, changed: Mapping[str, float] | tuple[str, ...]) -> Bend:
    """From a step on, these keys are more by so much; by a millionth where it is not said."""
    by = changed if isinstance(changed, Mapping) else dict.fromkeys(changed, 1e-6)

    def bend(step: int, found: Step) -> None:
        for key, more in by.items() if step >= at else ():
            found[key] += more

    return bend


def noisy(seed: int, size: float = 1e-3, *, quiet: Sequence[str] = ("lr",)) -> Bend:
    """Adds normal noise of this size to all keys but these; runs differ by their seeds."""
    chance = random.Random(seed)  # noqa: S311 - no secret

    def bend(_: int, found: Step) -> None:
        for key in [key for key in found if key not in quiet]:
            found[key] += size * chance.gauss(0, 1)

    return bend


def both(*bends: Bend) -> Bend:
    """Changes the values of a step in several ways."""

    def bend(step: int, found: Step) -> None:
        for each in bends:
            each(step, found)

    return bend
