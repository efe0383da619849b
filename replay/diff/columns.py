"""Compare a key of two runs: match rows by step, compare values exactly or within a tolerance.

The meaning of keys is not known here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.events import Value
from flexrec.recorder.files.names import ON_ACCELERATOR, is_fingerprint
from flexrec.recorder.storage.arrays import Ints
from flexrec.recorder.storage.series import Row
from flexrec.replay.diff.model import Shown, Values
from flexrec.replay.diff.run import Column, Run

LIMITS = (1e-6, 1e-3)
"""Limits of relative differences; the first step beyond each is reported."""

_LONGEST = 60  # characters of a text that are shown


@dataclass(frozen=True)
class Tolerance:
    """The allowed difference of numbers: `|a - b| <= atol + rtol * |a|`; both 0: equal bits."""

    rtol: float = 0.0
    atol: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.rtol or self.atol)

    def beyond(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Where two arrays of the same shape differ. A NaN equals one of the same bits, or with a
        tolerance any NaN."""
        bits: NDArray[np.bool_] = a.view(np.int64) != b.view(np.int64)
        if not self or not bits.any():
            return bits
        with np.errstate(invalid="ignore", over="ignore"):
            near = np.abs(a - b) <= self.atol + self.rtol * np.abs(a)
        apart: NDArray[np.bool_] = bits & ~near & (a != b) & ~(np.isnan(a) & np.isnan(b))
        return apart


class Match(NamedTuple):
    """Matching rows of two runs: the rows of each step, in order.

    Attributes:
        step: (n,) their steps, ascending unless all rows match.
        a, b: (n,) the indices of the rows; None: all rows, in order.
        only_a, only_b: the steps of rows that only one run has.
    """

    step: Ints
    a: Ints | None
    b: Ints | None
    only_a: Ints
    only_b: Ints


_NONE = np.empty(0, np.int64)
NO_ROWS = Match(_NONE, None, None, _NONE, _NONE)
"""The match of two keys without rows."""


def match(a: Ints, b: Ints) -> Match:
    """Match rows by their steps.

    >>> found = match(np.array([1, 1, 2]), np.array([1, 2, 3]))
    >>> found.step, found.a, found.b, found.only_a, found.only_b
    (array([1, 2]), array([0, 2]), array([0, 1]), array([1]), array([3]))
    """
    if np.array_equal(a, b):
        return Match(a, None, None, _NONE, _NONE)
    steps = np.union1d(a, b)
    most = 1 + max(_most_of_a_step(a), _most_of_a_step(b))
    one, other = (np.searchsorted(steps, step) * most + _place_in_step(step) for step in (a, b))
    _, in_a, in_b = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    only_a, only_b = (np.setdiff1d(*pair, True) for pair in ((one, other), (other, one)))
    return Match(a[in_a], in_a, in_b, steps[only_a // most], steps[only_b // most])


def in_all(steps: Sequence[Ints]) -> tuple[Ints, list[Ints | None]]:
    """Match rows of several runs: the steps of rows that all have, ascending, and the rows.

    >>> in_all([np.array([1, 2, 2]), np.array([2, 3])])
    (array([2]), [array([1]), array([0])])
    """
    first = steps[0]
    if (np.diff(first) >= 0).all() and all(np.array_equal(first, each) for each in steps[1:]):
        return first, [None] * len(steps)
    most = 1 + max(map(_most_of_a_step, steps))
    places = [step * most + _place_in_step(step) for step in steps]
    common = reduce(np.intersect1d, places)
    orders = [np.argsort(place, kind="stable") for place in places]
    rows = [o[np.searchsorted(p, common, sorter=o)] for p, o in zip(places, orders, strict=True)]
    return common // most, list(rows)


def _most_of_a_step(step: Ints) -> int:
    return int(np.unique(step, return_counts=True)[1].max(initial=0))


def _place_in_step(step: Ints) -> Ints:
    """For each row, the number of earlier rows of the same step."""
    order = np.argsort(step, kind="stable")
    ordered = step[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    places = np.empty(len(step), np.int64)
    places[order] = np.arange(len(step)) - np.repeat(begins, np.diff(np.append(begins, len(step))))
    return places


class Matcher:
    """Matches rows, and caches the results by steps, since most keys share them."""

    def __init__(self) -> None:
        self._known = list[tuple[Ints, Ints, Match]]()

    def match(self, a: Ints, b: Ints) -> Match:
        """The same as the function `match`, which is called once for equal steps."""
        for one, other, found in self._known:
            if np.array_equal(one, a) and np.array_equal(other, b):
                return found
        a, b = a.copy(), b.copy()  # the steps are part of a much larger array
        self._known.append((a, b, match(a, b)))
        return self._known[-1][2]


@dataclass
class KeyDiff:
    """The comparison of a key that both runs have.

    Attributes:
        key: the key.
        match: its matching rows.
        first: the first step at which it differs; None: it does not.
        a, b: the values there.
        relative: their difference relative to the first value.
        beyond: the first step beyond each limit of relative differences.
        is_unlike: whether there are fingerprints of which one is of the CPU and the other of an
            accelerator, which were not compared.
    """

    key: str
    match: Match
    first: int | None = None
    a: Shown = None
    b: Shown = None
    relative: float | None = None
    beyond: dict[float, int] = field(default_factory=dict)
    is_unlike: bool = False

    @property
    def values(self) -> Values:
        """The values at the first step at which it differs; fingerprints as in a trace."""
        if is_fingerprint(self.key):
            return Values(_hexadecimal(self.a), _hexadecimal(self.b))
        return Values(self.a, self.b, self.relative)

    def has(self, step: int) -> bool:
        """Whether both have a value of the step."""
        return bool((self.match.step == step).any())

    def previous(self, step: int) -> int | None:
        """The last step before this one for which both have a value."""
        before = self.match.step[self.match.step < step]
        return int(before.max()) if len(before) else None

    def missing(self, among: Ints) -> None:
        """Count values that only one run has as differences, at the given steps."""
        for steps, side in ((self.match.only_a, "b"), (self.match.only_b, "a")):
            lost = steps[np.isin(steps, among)]
            if len(lost) and (self.first is None or lost.min() < self.first):
                self.first, self.relative = int(lost.min()), None
                self.a, self.b = ("recorded", None) if side == "b" else (None, "recorded")


def compare_keys(a: Run, b: Run, keys: Sequence[str], tolerance: Tolerance) -> Iterator[KeyDiff]:
    """Compare keys that both runs have, a bounded number of values in memory at a time.

    Args:
        a, b: the runs.
        keys: the keys to compare.
        tolerance: the allowed difference of numbers.
    """
    numbers = [key for key in keys if a.is_number(key) and b.is_number(key)]
    matcher = Matcher()
    for group in a.groups(numbers):
        matches: dict[tuple[int, int], Match] = {}
        one, other = a.numbers(group), b.numbers(group)
        for key in group:
            x, y = one[key], other[key]
            pair = id(x.step), id(y.step)
            if pair not in matches:
                matches[pair] = matcher.match(x.step, y.step)
            yield _of_numbers(key, matches[pair], x, y, tolerance)
    are_numbers = set(numbers)
    for key in keys:
        if key not in are_numbers:
            yield _of_values(key, a, b, tolerance)


def _of_numbers(key: str, rows: Match, x: Column, y: Column, tolerance: Tolerance) -> KeyDiff:
    a = x.value if rows.a is None else x.value[rows.a]
    b = y.value if rows.b is None else y.value[rows.b]
    found = first_of(key, rows, rows.step, a, b, tolerance)
    where = np.flatnonzero(_differ(key, a, b, tolerance)) if found.first is not None else _NONE
    if len(where):
        apart, steps = relative(a[where], b[where]), rows.step[where]
        for limit in LIMITS:
            crossed = steps[apart > limit]
            if len(crossed):
                found.beyond[limit] = int(crossed.min())
    return found


def first_of(
    key: str,
    rows: Match,
    step: Ints,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    tolerance: Tolerance,
) -> KeyDiff:
    """Find the first difference of a key's values, or of some of them, at these steps."""
    found = KeyDiff(key, rows)
    found.is_unlike = is_fingerprint(key) and bool(_are_unlike(a, b).any())
    where = np.flatnonzero(_differ(key, a, b, tolerance))
    if len(where):
        at = where[int(step[where].argmin())]
        found.first, found.a, found.b = int(step[at]), float(a[at]), float(b[at])
        apart = float(relative(a[at : at + 1], b[at : at + 1])[0])
        found.relative = apart if np.isfinite(apart) else None
    return found


def _differ(
    key: str, a: NDArray[np.float64], b: NDArray[np.float64], tolerance: Tolerance
) -> NDArray[np.bool_]:
    """Whether the values differ; fingerprints of different kinds do not."""
    found = tolerance.beyond(a, b)
    return found & ~_are_unlike(a, b) if is_fingerprint(key) else found


def _are_unlike(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (a >= ON_ACCELERATOR) != (b >= ON_ACCELERATOR)
    return found


def _hexadecimal(value: Shown) -> Shown:
    if isinstance(value, float) and value.is_integer():
        return f"#{int(value):x}"
    return value


def relative(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The difference of b and a relative to a; NaN if one is NaN, or both are the same infinity."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found: NDArray[np.float64] = np.abs(b - a) / np.abs(a)
    return found


def _of_values(key: str, a: Run, b: Run, tolerance: Tolerance) -> KeyDiff:
    """Compare arrays, texts and tuples, row by row, up to the first that differs."""
    found = KeyDiff(key, match(a.steps(key), b.steps(key)))
    for row, other in _pairs(a, b, key, found.match):
        apart = _apart(row.value, other.value, tolerance)
        if apart is not None:
            found.first, (found.a, found.b) = row.step, apart
            break
    return found


def _pairs(a: Run, b: Run, key: str, rows: Match) -> Iterator[tuple[Row, Row]]:
    if rows.a is None or rows.b is None:
        return zip(a.rows(key), b.rows(key), strict=True)
    if (np.diff(rows.a) > 0).all() and (np.diff(rows.b) > 0).all():
        return zip(_chosen(a.rows(key), rows.a), _chosen(b.rows(key), rows.b), strict=True)
    one, other = list(a.rows(key)), list(b.rows(key))
    return ((one[i], other[j]) for i, j in zip(rows.a, rows.b, strict=True))


def _chosen(rows: Iterator[Row], which: Ints) -> Iterator[Row]:
    wanted = set(which.tolist())
    return (row for i, row in enumerate(rows) if i in wanted)


def _apart(a: Value, b: Value, tolerance: Tolerance) -> tuple[Shown, Shown] | None:
    """Two values as they are shown if they differ, or None if they are equal."""
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        pairs = (_apart(x, y, tolerance) for x, y in zip(a, b, strict=True))
        return next((pair for pair in pairs if pair is not None), None)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return _arrays_apart(a, b, tolerance)
    if isinstance(a, float) and isinstance(b, float):
        return (a, b) if tolerance.beyond(np.array([a]), np.array([b]))[0] else None
    if isinstance(a, str) and isinstance(b, str):
        return (_short(a), _short(b)) if a != b else None
    return _described(a), _described(b)


def _arrays_apart(
    a: NDArray[Any], b: NDArray[Any], tolerance: Tolerance
) -> tuple[Shown, Shown] | None:
    if a.dtype != b.dtype or a.shape != b.shape:
        return _described(a), _described(b)
    if a.tobytes() == b.tobytes():
        return None
    differ = _elements_apart(a.reshape(-1), b.reshape(-1), tolerance)
    if not differ.any():
        return None
    at = int(differ.argmax())
    x, y = a.reshape(-1)[at], b.reshape(-1)[at]
    place = np.unravel_index(at, a.shape)
    where = ", ".join(str(int(i)) for i in place)
    return f"{x} at [{where}]", f"{y} at [{where}]"


def _elements_apart(a: NDArray[Any], b: NDArray[Any], tolerance: Tolerance) -> NDArray[np.bool_]:
    if tolerance and a.dtype.kind == "f":
        return tolerance.beyond(a.astype(np.float64), b.astype(np.float64))
    size = a.dtype.itemsize
    bits = (x.view(np.uint8).reshape(-1, size) for x in (a, b))
    return np.asarray(np.not_equal(*bits).any(1))


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    if isinstance(value, tuple):
        return f"{len(value)} parts"
    return _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
