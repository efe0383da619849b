"""Where in a step a key belongs: its stage, and the layer and source that it speaks of."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from flexrec.replay.diff.model import Stage

FORWARD = ("inputs", "outputs")
BACKWARD = ("grad_out", "grad_in")
_SOURCES: dict[str, Stage] = {
    **dict.fromkeys(FORWARD, "forward"),
    **dict.fromkeys(BACKWARD, "backward"),
    "grad_weights": "backward",
    "updates": "optimizer",
    "optimizer": "optimizer",
    "weights": "weights",
}
_WORDS: dict[str, Stage] = {
    **dict.fromkeys(("batch", "data", "x", "y", "inputs", "targets", "labels", "rng"), "data"),
    **dict.fromkeys(("lr", "momentum", "rate", "betas", "decay"), "optimizer"),
    "loss": "loss",
}
_CLOCK = frozenset(
    ("time", "seconds", "secs", "ms", "elapsed", "eta", "duration", "throughput", "fps", "speed")
)
_ORDER: tuple[Stage, ...] = (
    *("config", "data", "forward", "loss", "backward", "optimizer", "weights", "metric"),
)


class Place(NamedTuple):
    """Where a key belongs.

    Attributes:
        stage: of the step.
        layer: the layer, and `source` what of it, as in `layer/source/statistic`; empty for a key
            that is not of a layer.
    """

    stage: Stage
    layer: str = ""
    source: str = ""


def place_of(key: str) -> Place:
    """Where a key belongs, by its name.

    >>> place_of("blocks.0/grad_out/mean").stage, place_of("train_loss").stage
    ('backward', 'loss')
    """
    layer, _, rest = key.rpartition("/")[0].rpartition("/")
    if layer and rest in _SOURCES:
        return Place(_SOURCES[rest], layer, rest)
    words = re.split(r"[^a-z]+", key.lower().removesuffix("/fingerprint"))
    found = {_WORDS[word] for word in words if word in _WORDS}
    if "loss" in found:
        return Place("loss")
    is_data = key.endswith("/fingerprint")  # of single letters a metric may be called, too
    if "data" in found and (is_data or {"batch", "data"} & set(words)):
        return Place("data")
    return Place("optimizer") if "optimizer" in found else Place("metric")


def is_of_the_clock(key: str) -> bool:
    """Whether a key's name says that it measures how long something took.

    >>> is_of_the_clock("step_time"), is_of_the_clock("timestep_loss")
    (True, False)
    """
    return not _CLOCK.isdisjoint(re.split(r"[^a-z]+", key.lower()))


def stage_rank(stage: Stage) -> int:
    """How late in a step a stage is."""
    return _ORDER.index(stage)


def layers_of(keys: Iterable[str]) -> list[str]:
    """The layers that keys speak of, in the order of their first appearance: that of the model."""
    return list(dict.fromkeys(place.layer for place in map(place_of, keys) if place.layer))


def parent_of(layer: str) -> str:
    """The module that contains a layer; "the model" where it is the model itself."""
    return layer.rpartition(".")[0] or "the model"
