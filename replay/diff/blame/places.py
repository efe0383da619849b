"""Find the stage of a step that a key belongs to, and its layer and source."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flexrec.recorder.files.names import is_around, is_fingerprint
from flexrec.replay.diff.model import Stage

FORWARD = ("inputs", "outputs")
BACKWARD = ("grad_out", "grad_in")
_SOURCES: dict[str, Stage] = {
    **dict.fromkeys(FORWARD, "forward"),
    **dict.fromkeys(BACKWARD, "backward"),
    "grad_weights": "backward",
    "updates": "optimizer",
    "state": "optimizer",
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
_RATE = re.compile(r"/group\d+/lr$")
_ORDER: tuple[Stage, ...] = (
    *("config", "data", "forward", "loss", "backward", "optimizer", "weights", "metric"),
)


class Place(NamedTuple):
    """The place of a key in a step.

    Attributes:
        stage: the stage of the step.
        layer, source: as in `layer/source/statistic`; empty for a key that belongs to no layer.
    """

    stage: Stage
    layer: str = ""
    source: str = ""


def place_of(key: str) -> Place:
    """The place of a key, by its name.

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
    is_data = is_fingerprint(key)  # metrics may have names of single letters too
    if "data" in found and (is_data or {"batch", "data"} & set(words)):
        return Place("data")
    return Place("optimizer") if "optimizer" in found else Place("metric")


def is_watched(key: str) -> bool:
    """Whether a key is of a layer or an optimizer: recorded at the steps that `watch` chose.

    >>> is_watched("0/outputs/mean"), is_watched("optimizer/group0/lr"), is_watched("lr")
    (True, True, False)
    """
    return bool(place_of(key).layer) or _RATE.search(key) is not None


def is_of_the_clock(key: str) -> bool:
    """Whether a key measures time or the machine, by its name.

    >>> is_of_the_clock("step_time"), is_of_the_clock("timestep_loss")
    (True, False)
    """
    return (
        is_around(key)
        or key.endswith("/step/share")
        or not _CLOCK.isdisjoint(re.split(r"[^a-z]+", key.lower()))
    )


def stage_rank(stage: Stage) -> int:
    """The index of a stage in the order of a step."""
    return _ORDER.index(stage)


def layers_of(keys: Iterable[str]) -> list[str]:
    """The layers of the keys, in the order of their first appearance."""
    return list(dict.fromkeys(place.layer for place in map(place_of, keys) if place.layer))


def as_run(keys: Iterable[str], order: Mapping[str, int]) -> list[str]:
    """The keys, with those of layers in the order in which the layers ran.

    >>> as_run(["head/inputs/mean", "loss", "body/inputs/mean"], {"body": 0, "head": 1})
    ['loss', 'body/inputs/mean', 'head/inputs/mean']
    """
    return sorted(keys, key=lambda key: order.get(place_of(key).layer, -1))


def in_time(
    layers: Sequence[str], fields: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """The inputs and outputs of layers in the order of time, the parts of a layer in between.

    Args:
        layers: their names, in the order in which they first ran.
        fields: the fields of the layers by name, as in `Recording.models`.

    >>> in_time(["a", "a.b", "c"], {})
    [('a', 'inputs'), ('a.b', 'inputs'), ('a.b', 'outputs'), ('a', 'outputs'), ('c', 'inputs'), \
('c', 'outputs')]
    """
    found, running = list[tuple[str, str]](), list[tuple[str, str]]()
    for layer in layers:
        while running and not layer.startswith(running[-1][1]):
            found.append((running.pop()[0], "outputs"))
        before, dot, own = layer.rpartition(".")
        is_model = own.rstrip("_") == fields.get(layer, {}).get("class")  # by its class's name
        running.append((layer, f"{before}{dot}" if is_model else f"{layer}."))
        found.append((layer, "inputs"))
    return [*found, *((layer, "outputs") for layer, _ in reversed(running))]


def around(*layers: str) -> tuple[str, ...]:
    """The modules whose code calls some of the layers, up to the first that calls all: it is last.

    Containers that number their parts, such as Sequential and ModuleList, have no code of their
    own. The model itself is "the model".

    >>> around("blocks.0.norm", "blocks.1.norm"), around("blocks.0.mlp.2")
    (('blocks.0', 'blocks.1', 'the model'), ('blocks.0',))
    """
    paths = [[*callers(layer)] for layer in layers]
    shared = next(each for each in paths[0] if all(each in others for others in paths))
    inside = (each for path in paths for each in path[: path.index(shared)])
    return *dict.fromkeys(inside), shared


def callers(layer: str) -> Iterator[str]:
    """The modules that contain a layer and have code, inner ones first."""
    while layer:
        layer, _, part = layer.rpartition(".")
        if layer and not part.isdigit():
            yield layer
    yield "the model"
