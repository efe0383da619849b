"""Combine statistics of parameters that were sharded over the processes of a run.

A watch measures only the part of a DTensor that its process holds. From the parts that the merged
recordings have, this computes what one process would have measured of the whole.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.arrays import Ints

_Floats = NDArray[np.float64]
_MOST = 1 << 53
_SOURCES = ("weights", "grad_weights", "updates", "state")


class _Part(NamedTuple):
    """What a process holds of a layer: its place in the mesh, and the numbers of elements."""

    at: tuple[int, ...]
    held: int
    is_trained: bool


class Rows(NamedTuple):
    """The rows of a column within whole steps: values (n,), steps (n,), recordings' numbers (n,);
    and the means (n,) of the same rows, for a standard deviation."""

    value: _Floats
    step: Ints
    source: Ints
    mean: _Floats | None = None


@dataclass(frozen=True)
class Sharded:
    """How a key's values of several recordings combine.

    Attributes:
        parts: what each recording's process holds of the layer; None where it is not sharded.
        combine: computes one value from the values, sizes and means of the parts.
        mean: the key of the mean, which a standard deviation needs.
    """

    parts: Sequence[_Part | None]
    combine: Callable[[_Floats, _Floats, _Floats], float]
    mean: str | None = None

    def combined(self, rows: Rows) -> _Floats:
        """The values, with those of each step replaced by the value of all parts; NaN at a step
        that lacks a part."""
        found = rows.value.copy()
        for members in _alike(rows):
            parts = [self.parts[i] for i in rows.source[members].tolist()]
            by_place = {
                part.at: (part, row)
                for part, row in zip(parts, members.tolist(), strict=True)
                if part is not None and part.held
            }
            if not by_place:
                continue
            if by_place.keys() != self._places():
                found[members] = math.nan
                continue
            chosen = np.array([row for _, row in by_place.values()])
            sizes = np.array([float(part.held) for part, _ in by_place.values()])
            means = rows.value if rows.mean is None else rows.mean
            found[members] = self.combine(rows.value[chosen], sizes, means[chosen])
        return found

    def _places(self) -> set[tuple[int, ...]]:
        return {part.at for part in self.parts if part is not None and part.held}


def _alike(rows: Rows) -> list[Ints]:
    """The row numbers of each step; of several values of a recording at a step, the first ones of
    all recordings together, then the second ones, and so on."""
    groups = dict[tuple[int, int], list[int]]()
    times = dict[tuple[int, int], int]()
    for row, place in enumerate(zip(rows.step.tolist(), rows.source.tolist(), strict=True)):
        times[place] = number = times.get(place, -1) + 1
        groups.setdefault((place[0], number), []).append(row)
    return [np.array(group) for group in groups.values()]


def sharded_keys(runs: Sequence[Recording]) -> dict[str, Sharded]:
    """The keys whose values combine: all parts of their layer are in the recordings."""
    layers = _layers(runs)
    found = dict[str, Sharded]()
    for key in dict.fromkeys(key for run in runs for key in run):
        if key.count("/") < 2:
            continue
        layer, source, stat = key.rsplit("/", 2)
        parts = layers.get(layer, ())
        trained = all(part.is_trained for part in parts if part is not None)
        sized = source == "weights" or trained or stat in _WITHOUT_SIZES
        if parts and source in _SOURCES and stat in _COMBINE and sized:
            mean = f"{layer}/{source}/mean" if stat == "std" else None
            if mean is None or all(mean in run for run in runs if key in run):
                found[key] = Sharded(parts, _COMBINE[stat], mean)
    return found


def _layers(runs: Sequence[Recording]) -> dict[str, list[_Part | None]]:
    """For each sharded layer the recordings' parts, if they are all that there are."""
    layers = dict[str, list[_Part | None]]()
    meshes = dict[str, set[tuple[int, ...]]]()
    for number, run in enumerate(runs):
        for name, layer in (pair for model in run.models.values() for pair in model.items()):
            part, of = _part(layer)
            if part is not None:
                layers.setdefault(name, [None] * len(runs))[number] = part
                meshes.setdefault(name, set()).add(of)
    return {
        name: parts
        for name, parts in layers.items()
        if len(meshes[name]) == 1
        and len({part.at for part in parts if part is not None}) == math.prod(*meshes[name])
    }


def _part(layer: dict[str, Any]) -> tuple[_Part | None, tuple[int, ...]]:
    """A layer's part by its description, and the sizes of the mesh's sharded dimensions."""
    shard = layer.get("shard")
    try:
        at, of = tuple(shard["at"]), tuple(shard["of"])  # type: ignore[index]
        held, is_trained = shard["weights"], shard["trainable"]  # type: ignore[index]
    except (TypeError, KeyError):
        return None, ()
    if not all(type(number) is int and 0 <= number < _MOST for number in (*at, *of, held)):
        return None, ()
    if len(at) != len(of) or any(place >= size for place, size in zip(at, of, strict=True)):
        return None, ()
    return _Part(at, held, is_trained is True), of


def _mean(value: _Floats, size: _Floats, _: _Floats) -> float:
    return float((value * size).sum() / size.sum())


def _std(value: _Floats, size: _Floats, mean: _Floats) -> float:
    within = ((size - 1) * value**2).sum()
    between = (size * (mean - _mean(mean, size, mean)) ** 2).sum()
    return math.sqrt((within + between) / max(size.sum() - 1, 1))


def _rms(value: _Floats, size: _Floats, mean: _Floats) -> float:
    return math.sqrt(_mean(value**2, size, mean))


_WITHOUT_SIZES: dict[str, Callable[[_Floats, _Floats, _Floats], float]] = {
    "norm": lambda value, _size, _mean: float(np.linalg.norm(value)),
    "min": lambda value, _size, _mean: float(value.min()),
    "max": lambda value, _size, _mean: float(value.max()),
    "nan_count": lambda value, _size, _mean: float(value.sum()),
    "inf_count": lambda value, _size, _mean: float(value.sum()),
}
_COMBINE = {
    **_WITHOUT_SIZES,
    **dict.fromkeys(("mean", "abs_mean", "zero_fraction", "nonfinite"), _mean),
    "std": _std,
    "rms": _rms,
}
