"""The statistics by name, and which of them apply to which source.

They are computed from the measures in measures.py. This module is independent of layers and calls.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from flexrec.recorder.errors import DefinitionError, nearest
from flexrec.recorder.layers.measuring.measures import (
    ALIVE,
    EXTREMES,
    FINGERPRINT,
    MOMENTS,
    POWERS,
    SAMPLE,
    Measure,
    Number,
    Partial,
    Sample,
    dead,
    fingerprint_number,
    item,
    norm,
    ratio,
    summed,
)

Stat: TypeAlias = str | Callable[[Tensor], Any]
"""A name in `STATISTICS`, or a function from a tensor to a number."""

SOURCES = ("grad_in", "grad_out", "inputs", "outputs", "weights", "grad_weights", "updates")
"""The sources that statistics can be computed of."""


COSTS = ("seconds", "bytes")
"""Statistics of a layer's calls rather than of a tensor; costs.py takes them."""


def split_costs(stats: Iterable[Stat] | Stat) -> tuple[frozenset[str], list[Stat]]:
    """The statistics that are costs, and the others."""
    given: list[Stat] = [stats] if isinstance(stats, str) or callable(stats) else list(stats)
    costs = frozenset(stat for stat in given if isinstance(stat, str) and stat in COSTS)
    return costs, [stat for stat in given if stat not in costs]


@dataclass(frozen=True, eq=False, slots=True)
class Statistic:
    """A number or an array computed from a measure.

    Attributes:
        name: the last part of the key.
        measure: the measure it is computed from; None: the layer's `GradientStream`.
        read: computes a float, or a tensor on the device of the measured tensor.
        source: the only source that it applies to; None: any.
        per_weight: whether it is divided by the Euclidean norm of the layer's weights.
    """

    name: str
    measure: Measure | None
    read: Callable[[Partial], Number]
    source: str | None = None
    per_weight: bool = False


_OF_TORCH = ("mean", "std", "min", "max", "norm")
"""torch.mean is "mean", and so on: faster, and pooled exactly."""

_OF_STATE = ("norm", "fingerprint")

Plan: TypeAlias = Mapping[str, tuple[Statistic, ...]]
"""The statistics to compute, by source."""


def plan(sources: Iterable[str], stats: Iterable[Stat], *, state: bool = False) -> Plan:
    """Choose which statistics to compute of which source.

    >>> {source: [s.name for s in chosen] for source, chosen in
    ...  plan(["weights"], ["mean", "dead"]).items()}
    {'weights': ['mean'], 'outputs': ['dead']}

    A statistic that applies to one source only is computed of it, whether or not it is in
    `sources`. With `state`, there is a source `state`, of which the norm is computed, and the
    fingerprint if it is in `stats`.

    Raises:
        DefinitionError: a source or statistic is unknown, two statistics have the same name, or
            there is nothing to compute.
    """
    chosen: dict[str, list[Statistic]] = {}
    for source in [sources] if isinstance(sources, str) else sources:
        if source not in SOURCES:
            raise DefinitionError(
                f"no source {source!r}{nearest(str(source), SOURCES)} (there are {_list(SOURCES)})"
            )
        chosen[source] = []
    named: dict[str, Statistic] = {}
    for stat in [stats] if isinstance(stats, str) or callable(stats) else stats:
        statistic = _find(stat)
        if named.setdefault(statistic.name, statistic) is not statistic:
            raise DefinitionError(
                f"two different statistics are called {statistic.name!r}; "
                "give one of the functions another __name__"
            )
    for statistic in named.values():
        of = list(chosen) if statistic.source is None else [statistic.source]
        for source in of:
            chosen.setdefault(source, []).append(statistic)
    if state:
        named.setdefault("norm", STATISTICS["norm"])
        chosen["state"] = [named[name] for name in _OF_STATE if name in named]
    planned = {source: tuple(statistics) for source, statistics in chosen.items() if statistics}
    if not planned:
        raise DefinitionError("nothing to take: give at least one source and one statistic")
    return planned


def measures_of(planned: Plan) -> dict[str, tuple[Measure, ...]]:
    """The measures needed for each source, without duplicates."""
    measures = {
        source: {statistic.measure: None for statistic in statistics if statistic.measure}
        for source, statistics in planned.items()
    }
    if any(s.per_weight for statistics in planned.values() for s in statistics):
        measures.setdefault("weights", {})[MOMENTS] = None
    return {source: tuple(of) for source, of in measures.items()}


def _find(stat: object) -> Statistic:
    if isinstance(stat, str):
        if stat in STATISTICS:
            return STATISTICS[stat]
        known = (*STATISTICS, *COSTS)
        raise DefinitionError(
            f"no statistic {stat!r}{nearest(stat, known)} "
            f"(there are {_list(known)}; a function from a tensor to a number will do too)"
        )
    name = getattr(stat, "__name__", None)
    if not callable(stat) or not isinstance(name, str):
        raise DefinitionError(
            f"a statistic is a name or a function with a __name__, got {stat!r:.80}"
        )
    if name in _OF_TORCH and getattr(torch, name) is stat:
        return STATISTICS[name]
    return _function(name, stat)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _function(name: str, function: Callable[[Tensor], Any]) -> Statistic:
    """A caller's own statistic; over several tensors, the mean weighted by their sizes.

    A function that fails at its first call is a wrong argument. One that fails later is left out,
    as it must not end training.
    """
    has_worked = False

    def of(tensor: Tensor) -> Partial:
        nonlocal has_worked
        try:
            value = _result(name, function, tensor)
        except DefinitionError as error:
            if has_worked:
                raise RuntimeError(str(error)) from error
            raise
        has_worked = True
        return tensor.numel(), value

    def merge(a: Partial, b: Partial) -> Partial:
        both = a[0] + b[0]
        return both, a[1] * (a[0] / both) + b[1] * (b[0] / both)

    return Statistic(name, Measure(of, merge), lambda measured: measured[1])


def _result(name: str, function: Callable[[Tensor], Any], tensor: Tensor) -> Number:
    try:
        value = _in_full_precision(function, tensor)
    except Exception as error:
        raise DefinitionError(f"the statistic {name!r} failed: {error}") from error
    return _real(name, value)


def _in_full_precision(function: Callable[[Tensor], Any], tensor: Tensor) -> Any:
    if tensor.is_meta:
        return function(tensor)
    with torch.autocast(tensor.device.type, enabled=False):
        return function(tensor)


def _real(name: str, value: Any) -> Number:
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return item(value.detach().reshape(()))
    if isinstance(value, (int, float, np.number)) and not isinstance(value, np.complexfloating):
        return float(value)
    shape = getattr(value, "shape", None)
    came = type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")
    raise DefinitionError(f"the statistic {name!r} must return one real number, got a {came}")


def _rms(moments: Partial) -> Number:
    return norm(moments) / math.sqrt(moments[0])


def _fraction(counted: Partial) -> Number:
    return ratio(counted[1], float(counted[0]))


def _count(counted: Partial) -> Number:
    count: Number = counted[1]
    return count if isinstance(count, Tensor) else float(count)


def _quantile(name: str, fraction: float) -> Statistic:
    return Statistic(name, SAMPLE, lambda sample: sample.quantile(fraction))


STATISTICS: Mapping[str, Statistic] = MappingProxyType(
    {
        statistic.name: statistic
        for statistic in (
            Statistic("mean", MOMENTS, lambda moments: moments[1]),
            Statistic("std", MOMENTS, lambda moments: moments[2]),
            Statistic("min", EXTREMES, lambda extremes: extremes[0]),
            Statistic("max", EXTREMES, lambda extremes: extremes[1]),
            Statistic("norm", MOMENTS, norm),
            Statistic("rms", MOMENTS, _rms),
            Statistic("abs_mean", summed(lambda flat: flat.abs().sum()), _fraction),
            Statistic("zero_fraction", summed(lambda flat: flat.eq(0).sum()), _fraction),
            Statistic("nan_count", summed(lambda flat: flat.isnan().sum()), _count),
            Statistic("inf_count", summed(lambda flat: flat.isinf().sum()), _count),
            Statistic("nonfinite", summed(lambda flat: (~flat.isfinite()).sum()), _fraction),
            Statistic("median", SAMPLE, lambda sample: sample.quantile(0.5)),
            *(_quantile(f"q{percent:02}", percent / 100) for percent in (5, 25, 50, 75, 95)),
            Statistic("histogram", SAMPLE, Sample.histogram),
            Statistic("log_histogram", POWERS, lambda counts: counts),
            Statistic("dead", ALIVE, dead, "outputs"),
            Statistic("fingerprint", FINGERPRINT, fingerprint_number),
            Statistic("grad_ratio", MOMENTS, norm, "grad_weights", per_weight=True),
            Statistic("update_ratio", MOMENTS, norm, "updates", per_weight=True),
            Statistic("signal", None, lambda stream: stream.signal(), "grad_weights", True),
            Statistic("noise", None, lambda stream: stream.noise(), "grad_weights", True),
            Statistic("snr", None, lambda s: ratio(s.signal(), s.noise()), "grad_weights"),
        )
    }
)
"""All named statistics."""
