"""Run, the columns by key that are compared: of a recording, or of a part that a resume repeats."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from heapq import merge
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.layers.models import Models, is_watched
from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.arrays import Ints
from flexrec.recorder.storage.series import Row

Range = tuple[int, int]
"""A range of event positions, without its end."""

MOST = 1 << 21
"""The most values that are read from a run at once: 16 MiB, and as much for the steps."""


class Column(NamedTuple):
    """A key's numbers: (n,) steps, and (n,) float64 values, in the recorded order."""

    step: Ints
    value: NDArray[np.float64]


class Run:
    """The keys of a recording, combined from several views of it in the recorded order.

    Args:
        name: the name of the run.
        views: the recording, and, if they are needed, its superseded events.
        ranges: the ranges of events that belong to the run, in order; None: all.
        rename: returns the name under which a key is compared.

    Attributes:
        layers: the fields of the watched layers by name, as in `Recording.models`; the order of
            each model's begins where that of the model watched before it ends, and `model` is the
            model's number.
    """

    def __init__(
        self,
        name: str,
        views: Sequence[Recording],
        ranges: Sequence[Range] | None = None,
        rename: Callable[[str], str] = str,
    ) -> None:
        self.name, self._views, self._ranges, self._rename = name, views, ranges, rename
        self.config = views[0].config
        self._keys = {rename(key): key for view in views for key in view}
        models = {
            model: {self.layer(name): of for name, of in layers.items() if is_watched(of)}
            for model, layers in views[0].models.items()
        }
        models = {model: layers for model, layers in models.items() if layers}
        self.layers = _in_one_order(models.values())
        self.facts = _with_models(views[0].facts, models)

    def __iter__(self) -> Iterator[str]:
        """The names under which keys are compared, in the order in which they appear."""
        return iter(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def is_number(self, key: str) -> bool:
        """Whether every value of the key is a single number."""
        return all(view.is_number(self._keys[key]) for view in self._views)

    @property
    def whole(self) -> Recording | None:
        """The recording, if the run is a whole recording; else None."""
        return self._views[0] if len(self._views) == 1 and self._ranges is None else None

    def own(self, key: str) -> str:
        """The name of a key in the recording itself."""
        return self._keys[key]

    def groups(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """Groups of keys that can be read at once."""
        counts = [view.counts() for view in self._views]
        group, size = list[str](), 0
        for key in keys:
            more = sum(count[self._keys[key]] for count in counts)
            if group and size + more > MOST:
                yield group
                group, size = [], 0
            group.append(key)
            size += more
        if group:
            yield group

    def numbers(self, keys: Sequence[str]) -> dict[str, Column]:
        """The columns of several keys; keys that were added together share their steps."""
        own = {self._keys[key]: key for key in keys}
        found = [view.series(own) for view in self._views]
        if len(found) == 1 and self._ranges is None:
            return {own[k]: Column(series.step, series.value) for k, series in found[0].items()}
        return {own[key]: self._combined([read[key] for read in found]) for key in own}

    def apart(self, keys: Sequence[str]) -> list[str]:
        """One of each set of keys that were always added together, and so have the same steps."""
        if len(self._views) > 1:
            return list(keys)
        sets = {key: self._views[0].columns.added_with(self._keys[key]) or key for key in keys}
        return list({together: key for key, together in sets.items()}.values())

    def layer(self, name: str) -> str:
        """The name under which a layer is compared."""
        return self._rename(f"{name}/")[:-1]

    def rows(self, key: str, *, everywhere: bool = False) -> Iterator[Row]:
        """A key's values of any kind, in order; `everywhere`: also those outside the ranges."""
        rows = merge(
            *(view.rows(self._keys[key]) for view in self._views), key=lambda row: row.position
        )
        return rows if self._ranges is None or everywhere else filter(self._holds, rows)

    def steps(self, key: str) -> Ints:
        """The steps of a key's values, without reading the values."""
        found = [view.columns.index(self._keys[key]) for view in self._views]
        position = np.concatenate([index.position for index in found])
        step = np.concatenate([index.step for index in found])
        order = np.argsort(position, kind="stable")
        return step[order][self._within(position[order])]

    def _combined(self, found: Sequence[Any]) -> Column:
        position = np.concatenate([series.position for series in found])
        order = np.argsort(position, kind="stable")
        order = order[self._within(position[order])]
        step = np.concatenate([series.step for series in found])
        return Column(step[order], np.concatenate([series.value for series in found])[order])

    def _within(self, position: Ints) -> NDArray[np.bool_]:
        """Whether each of the ascending positions belongs to the run."""
        if self._ranges is None:
            return np.ones(len(position), bool)
        within = np.zeros(len(position), bool)
        for edges in self._ranges:
            first, last = np.searchsorted(position, edges)
            within[first:last] = True
        return within

    def _holds(self, row: Row) -> bool:
        return self._ranges is None or any(a <= row.position < b for a, b in self._ranges)


def _with_models(facts: dict[str, Any] | None, models: Models) -> dict[str, Any] | None:
    """The facts, with these models instead of those that they have; None if nothing is left."""
    if facts is None:
        return None
    if not models:
        return {name: of for name, of in facts.items() if name != "models"} or None
    return {name: models if name == "models" else of for name, of in facts.items()}


def _in_one_order(models: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for number, layers in enumerate(models):
        before = len(found)  # more than any order so far
        for name, fields in layers.items():
            order = fields.get("order")
            own = order + before if isinstance(order, int) else None
            found[name] = {**fields, "order": own, "model": number}
    return found


def renamed(patterns: Sequence[tuple[str, str]]) -> Callable[[str], str]:
    """Make a function that renames keys; a `*` on both sides stands for the same text.

    >>> renamed([("old.*", "new.*")])("old.0/weights/mean")
    'new.0/weights/mean'
    """

    def rename(key: str) -> str:
        for old, new in patterns:
            if fnmatchcase(key, old):
                return _filled(key, old, new)
            layer, slash, rest = key.partition("/")
            if slash and "/" not in old and fnmatchcase(layer, old):
                return f"{_filled(layer, old, new)}/{rest}"
        return key

    return rename


def _filled(text: str, old: str, new: str) -> str:
    before, star, after = old.partition("*")
    if not star or "*" not in new:
        return new
    return new.replace("*", text[len(before) : len(text) - len(after)], 1)
