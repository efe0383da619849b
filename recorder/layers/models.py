"""What a recording says of the layers of models, watched or not. Does not import torch."""

from collections.abc import Mapping
from typing import Any, TypeAlias

Description: TypeAlias = dict[str, dict[str, Any]]
"""The fields of each layer by its name; `Recording.models` explains them."""

Models: TypeAlias = dict[str, Description]
"""The layers of models, by the model's name."""


def models_of(facts: Mapping[str, Any]) -> Models:
    """The layers of models, from the facts of a recording, which may hold anything."""
    models = facts.get("models")
    return {
        name: {layer: fields for layer, fields in layers.items() if isinstance(fields, dict)}
        for name, layers in (models.items() if isinstance(models, dict) else ())
        if isinstance(layers, dict)
    }


def layers_of_all(facts: Mapping[str, Any]) -> Models:
    """The same, with the models of the recordings that were merged, numbered."""
    return {
        f"{number} {name}": layers
        for number, part in enumerate(_parts(facts))
        for name, layers in models_of(part).items()
    }


def _parts(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The facts, and those of the recordings that were merged, which may be merged ones, too."""
    parts = [facts]
    for part in parts:  # grows meanwhile
        merged = part.get("merged")
        for each in merged if isinstance(merged, list) else ():
            if isinstance(each, dict) and isinstance(each.get("facts"), dict):
                parts.append(each["facts"])
    return parts


def is_watched(layer: Mapping[str, Any]) -> bool:
    """Whether a layer was described by a watch, not only by `Recorder.activations`."""
    return layer.get("calls", 0) is not None


def with_watched(known: Models, models: Mapping[str, Mapping[str, Any]]) -> Models:
    """What is known of models, and what a watch found; the layers of activations stay."""
    every = dict(known)
    for name, layers in models.items():
        before = every.get(name, {})
        others = {each: of for each, of in before.items() if not is_watched(of)}
        if len(others) == len(before):
            every.pop(name, None)  # so that watched models keep their order
        every[name] = {**layers, **{each: of for each, of in others.items() if each not in layers}}
    return every


def with_unwatched(known: Models, models: Models) -> Models:
    """What is known of models, and what `Recorder.activations` found of layers not watched."""
    every = dict(known)
    for name, layers in models.items():
        before = every.get(name, {})
        watched = {each: of for each, of in before.items() if is_watched(of)}
        every[name] = {**before, **layers, **watched}
    return every
