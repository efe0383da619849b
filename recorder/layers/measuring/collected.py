"""Collected: measures of tensors, pooled by layer and source; and the tensors in a value."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

from torch import Tensor

from flexrec.recorder.layers.failures import Failures
from flexrec.recorder.layers.measuring.measures import ALIVE, Measure, Partial, prepare
from flexrec.recorder.layers.measuring.units import DROPPED
from flexrec.recorder.layers.torch_private import dispatch_modes_are_active, hidden_from_modes

Partials: TypeAlias = dict[Measure, Partial]
Key: TypeAlias = tuple[str, str]
"""A layer and a source."""

_NOTHING = nullcontext()


class Collected:
    """Measures of tensors, pooled by layer and source.

    Args:
        measures: the measures to take, by source.
        failures: collects what could not be measured.

    Attributes:
        pooled: the results by layer and source. They are replaced, never changed, since several
            keys may share them.
    """

    def __init__(self, measures: Mapping[str, tuple[Measure, ...]], failures: Failures) -> None:
        self._measures, self._failures = measures, failures
        self.pooled: dict[Key, Partials] = {}

    def add(
        self,
        key: Key,
        tensor: Tensor,
        known: Partials,
        units: int | None = None,
        *,
        undo: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Measure a tensor, and pool the results into those of a key.

        Args:
            key: the layer and the source.
            tensor: the tensor.
            known: the tensor's earlier results; gets the new ones.
            units: the dimension that counts units, if it is known.
            undo: converts the tensor before it is measured.
        """
        self.measure(key, tensor, known, units, undo=undo)
        self.pool(key, known)

    def measure(
        self,
        key: Key,
        tensor: Tensor,
        known: Partials,
        units: int | None = None,
        *,
        undo: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Add the results of a key's measures to `known`, except those that fail."""
        missing = [measure for measure in self._measures[key[1]] if measure not in known]
        if not missing:
            return
        with hidden_from_modes() if dispatch_modes_are_active() else _NOTHING:
            prepared = prepare(tensor)
            if prepared is None:
                return
            if undo is not None:
                prepared = undo(prepared)
            for measure in missing:
                with self._failures.leaving_out(*key):
                    if measure is not ALIVE:
                        known[measure] = measure.of(prepared)
                    elif units is not None and units != DROPPED:
                        known[measure] = measure.of(prepared.movedim(units, -1))

    def pool(self, key: Key, known: Partials) -> None:
        """Pool the results of one tensor into those of a key."""
        pooled = self.pooled.get(key)
        if pooled is None:
            if known:
                self.pooled[key] = known
        elif known:
            self.pooled[key] = merged(pooled, known)


def merged(one: Partials, other: Partials) -> Partials:
    """The pooled results of two tensors; where one could not be measured, those of the other."""
    return {
        measure: measure.merge(one[measure], other[measure])
        if measure in one and measure in other
        else (one if measure in one else other)[measure]
        for measure in {**one, **other}
    }


def tensors_in(values: Any) -> Iterable[Tensor]:
    """The floating and complex tensors in nested tuples, lists, dicts and dataclasses, once."""
    if isinstance(values, Tensor) and values.is_floating_point():
        return (values,)
    found: dict[int, Tensor] = {}
    _gather(values, found)
    return found.values()


def _gather(values: Any, found: dict[int, Tensor]) -> None:
    """Find the tensors in nested values, in order; no object is searched twice."""
    waiting, looked_into = [values], dict[int, Any]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            if value.is_floating_point() or value.is_complex():
                found[id(value)] = value
            continue
        inside: Iterable[Any]
        if isinstance(value, (tuple, list)):
            inside = value
        elif isinstance(value, dict):
            inside = value.values()
        elif is_dataclass(value) and not isinstance(value, type):
            inside = [getattr(value, field.name, None) for field in fields(value)]
        else:
            continue
        if id(value) not in looked_into:
            looked_into[id(value)] = value  # holds the object, so that its id is not reused
            waiting += reversed(list(inside))
