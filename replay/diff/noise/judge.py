"""Judge numbers of a run by the spread of references: since when, and in which layer first."""

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from flexrec.recorder.storage.arrays import Ints
from flexrec.replay.diff.blame.by_statistics import blame
from flexrec.replay.diff.blame.places import as_run, place_of
from flexrec.replay.diff.columns import KeyDiff, Match, in_all
from flexrec.replay.diff.model import Blame, First, Stage, Values, kind_of, order_of
from flexrec.replay.diff.noise.spread import (
    KEPT,
    WINDOW,
    Floats,
    Singles,
    excess,
    first_beyond,
    lasting,
    least_keys,
    limit_of,
)
from flexrec.replay.diff.run import Column, Run

_STRONG = 10.0  # how many times the spread in a single step shows where it begins
_NEAR = 10  # keys of a stage that are within this factor of its furthest one begin there, too
_SIGNED = ("mean", "median")  # statistics that may be near 0 though the tensor is not
_NONE = np.empty(0, np.int64)

_Part = tuple[Ints, list[str], Singles]
"""(rows,) steps, the keys that have these, and (rows, keys) their excess."""


@dataclass(frozen=True)
class Judged:
    """The verdict on keys of numbers.

    Attributes:
        keys: the keys that were judged.
        since: the step from which the run is beyond the spread; None: it is not.
        seen: the step at which this is certain.
        beyond: the keys that are beyond by themselves, and since which step.
        first: where it is seen first.
    """

    keys: tuple[str, ...]
    since: int | None = None
    seen: int | None = None
    beyond: Mapping[str, int] = field(default_factory=dict)
    first: First | None = None


class Measured(NamedTuple):
    """How far keys of a run lie outside the spread of its references.

    Attributes:
        step: (rows,) the steps of all keys.
        keys: the keys.
        rows: the rows in which each key has values.
        excess: (rows, keys) in multiples of the spread; 0 where a key has no value.
        kept: (rows, keys) the excess that lasts; that of the row before where a key has no value.
        lost: the keys that are not finite though all references are, by the first such step.
    """

    step: Ints
    keys: list[str]
    rows: list[Ints]
    excess: Singles
    kept: Singles
    lost: Mapping[str, int]

    def began(self, key: int, seen: int, limit: float) -> int:
        """The first row beyond the limit among those that made a key be beyond at row `seen`."""
        rows = self.rows[key]
        rows = rows[rows <= seen][-WINDOW:]
        return int(rows[(self.excess[rows, key] > limit).argmax()])


def judge(a: Run, b: Run, references: Sequence[Run], keys: Sequence[str]) -> Judged:
    """Judge keys of numbers that all runs have.

    Args:
        a, b: the runs; `a` is a reference itself.
        references: the other references.
        keys: the keys.
    """
    runs = (b, a, *references)
    found = measure(runs, as_run(keys, order_of(a)))
    limit = limit_of(len(runs) - 1)
    judged = _by_spread(found, runs, limit)
    return _with_lost(judged, found.lost, runs) if found.lost else judged


def _by_spread(found: Measured, runs: Sequence[Run], limit: float) -> Judged:
    at = first_beyond(found.kept, limit)
    if at is None:
        return Judged(tuple(found.keys))
    over = found.kept[at:] > limit  # a key that was so before, alone, was so by chance
    beyond = {
        found.keys[i]: int(found.step[found.began(i, at + int(over[:, i].argmax()), limit)])
        for i in np.flatnonzero(over.any(axis=0)).tolist()
    }
    beyond = dict(sorted(beyond.items(), key=itemgetter(1)))
    starts = sorted(found.began(i, at, limit) for i in np.flatnonzero(over[0]).tolist())
    row = starts[min(least_keys(len(found.keys)), len(starts)) - 1]
    first = _first(found, row, at, runs)
    steps = int(found.step[row]), int(found.step[at])
    return Judged(tuple(found.keys), *steps, beyond, first)


def _with_lost(judged: Judged, lost: Mapping[str, int], runs: Sequence[Run]) -> Judged:
    """The verdict with keys that are not finite: each is beyond any spread by itself."""
    beyond = dict(judged.beyond)
    for key, step in lost.items():
        beyond[key] = min(step, beyond.get(key, step))
    beyond = dict(sorted(beyond.items(), key=itemgetter(1)))
    keys = tuple(dict.fromkeys((*judged.keys, *lost)))
    since = min(lost.values())
    if judged.since is not None and judged.since < since:
        return replace(judged, keys=keys, beyond=beyond)
    return Judged(keys, since, since, beyond, _first_lost(lost, since, runs))


# ---------------------------------------------------------------- how far it is outside


def measure(runs: Sequence[Run], keys: Sequence[str]) -> Measured:
    """Measure how far keys of the first run lie outside the spread of the others."""
    parts, lost = list[_Part](), dict[str, int]()
    for step, names, values in _in_common(runs, keys):
        known = np.logical_and.accumulate(np.isfinite(values[1:]).all(axis=0), axis=0)
        bad = known & ~np.isfinite(values[0])
        lost |= {names[i]: int(step[bad[:, i].argmax()]) for i in np.flatnonzero(bad.any(axis=0))}
        judged = np.flatnonzero(known.sum(axis=0) >= KEPT)
        if len(judged):
            chosen, of = [names[i] for i in judged], values[..., judged]
            parts.append((step, chosen, _measured(chosen, of[0], of[1:])))
    measured = {key for _, names, _ in parts for key in names}
    places = {key: i for i, key in enumerate(key for key in keys if key in measured)}
    step = np.unique(np.concatenate([_NONE, *(own for own, _, _ in parts)]))
    excess, kept = (np.zeros((len(step), len(places)), np.float32) for _ in range(2))
    rows: list[Ints] = [_NONE] * len(places)
    for own, names, found in parts:
        columns, at = [places[key] for key in names], np.searchsorted(step, own)
        latest = np.searchsorted(own, step, side="right") - 1
        excess[at[:, None], columns] = found
        kept[:, columns] = np.where(latest[:, None] >= 0, lasting(found)[latest], 0)
        for column in columns:
            rows[column] = at
    return Measured(step, list(places), rows, excess, kept, lost)


def _in_common(
    runs: Sequence[Run], keys: Sequence[str]
) -> Iterator[tuple[Ints, list[str], Floats]]:
    """Read keys of one source that have the same steps: (rows,) steps, keys, (runs, rows, keys)."""
    by_source = defaultdict[str, list[str]](list)
    for key in keys:
        by_source[place_of(key).source or key].append(key)
    for group in by_source.values():
        columns = [run.numbers(group) for run in runs]
        for names in _with_the_same_steps(group, columns):
            step, rows = in_all([column[names[0]].step for column in columns])
            values = [_values(c, names, r) for c, r in zip(columns, rows, strict=True)]
            yield step, names, np.stack(values)


def _with_the_same_steps(
    keys: Sequence[str], columns: Sequence[Mapping[str, Column]]
) -> list[list[str]]:
    """Group keys; those that were added together share the array of their steps."""
    known = dict[int, bytes]()
    groups = defaultdict[tuple[bytes, ...], list[str]](list)
    for key in keys:
        steps = [column[key].step for column in columns]
        groups[tuple(known.setdefault(id(s), s.tobytes()) for s in steps)].append(key)
    return list(groups.values())


def _values(columns: Mapping[str, Column], keys: Sequence[str], rows: Ints | None) -> Floats:
    """(rows, keys) the values of a run, in the order of steps."""
    chosen = slice(None) if rows is None else rows
    return np.stack([columns[key].value[chosen] for key in keys], axis=1)


def _measured(keys: Sequence[str], value: Floats, others: Floats) -> Singles:
    """(rows, keys) the excess; keys of the same statistic are measured together."""
    found = np.empty(value.shape, np.float32)
    sizes = _sizes(keys, np.abs(others).max(axis=0))
    groups = defaultdict[str, list[int]](list)
    for i, key in enumerate(keys):
        groups[key.rpartition("/")[2] if place_of(key).layer else key].append(i)
    for group in groups.values():
        low, high = others[..., group].min(axis=0), others[..., group].max(axis=0)
        found[:, group] = excess(low, high, value[:, group], sizes[:, group])
    return found


def _sizes(keys: Sequence[str], size: Floats) -> Floats:
    """(rows, keys) the size of what each value is taken of: of a mean, that of the tensor."""
    places = {key: i for i, key in enumerate(keys)}
    sizes = size.copy()
    for key, i in places.items():
        spread = spread_of(key, places)
        if spread is not None:
            sizes[:, i] = np.hypot(size[:, i], size[:, places[spread]])
    return sizes


def spread_of(key: str, known: Container[str]) -> str | None:
    """For a mean or a median, the key of its tensor's spread, if it is known.

    >>> [spread_of(key, {"0/weights/std"}) for key in ("0/weights/mean", "0/weights/max")]
    ['0/weights/std', None]
    """
    tensor, _, statistic = key.rpartition("/")
    if statistic not in _SIGNED:
        return None
    return next((f"{tensor}/{s}" for s in ("std", "rms") if f"{tensor}/{s}" in known), None)


# ---------------------------------------------------------------- where it begins


def _first(found: Measured, since: int, seen: int, runs: Sequence[Run]) -> First:
    """Where the run is beyond the spread first: by the rules for statistics that differ."""
    strong = (found.excess[since : seen + 1] > _STRONG).any(axis=1)
    row = since + int(strong.argmax())
    if strong.any():
        blamed = blame(int(found.step[row]), _differing(found, row), runs[1].layers)
    else:
        key = found.keys[int(found.kept[seen].argmax())]
        blamed = Blame(place_of(key).stage, key)
    far = float(found.excess[since : seen + 1, found.keys.index(blamed.key)].max())
    begin = "" if strong.any() else "; no step by itself shows where it begins"
    cause = f"outside the spread of {len(runs) - 1} references by {far:.3g} times its width{begin}"
    previous = int(found.step[since - 1]) if since else None
    values = _shown(runs, blamed.key, int(found.step[row]))
    kind = kind_of(runs[1], blamed.layer)
    step = int(found.step[since])
    return First.of(replace(blamed, cause=cause), step, previous, values, kind=kind)


def _first_lost(lost: Mapping[str, int], step: int, runs: Sequence[Run]) -> First:
    """The first key that is not finite; keys come in the order in which their layers ran."""
    found = {
        key: KeyDiff(key, Match(runs[0].steps(key), None, None, _NONE, _NONE), first)
        for key, first in lost.items()
    }
    blamed = blame(step, found, runs[1].layers)
    cause = f"not finite, though {len(runs) - 1} references are finite here"
    values, previous = _shown(runs, blamed.key, step), found[blamed.key].previous(step)
    kind = kind_of(runs[1], blamed.layer)
    return First.of(replace(blamed, cause=cause), step, previous, values, kind=kind)


def _differing(found: Measured, row: int) -> dict[str, KeyDiff]:
    """The keys as if those differed at a row that are as far outside as any of their stage."""
    step = int(found.step[row])
    matches = {id(rows): Match(found.step[rows], None, None, _NONE, _NONE) for rows in found.rows}
    stages = [place_of(key).stage for key in found.keys]
    furthest = defaultdict[Stage, float](float)
    for stage, far in zip(stages, found.excess[row].tolist(), strict=True):
        furthest[stage] = max(furthest[stage], far)
    differ = dict[str, KeyDiff]()
    for i, (key, stage) in enumerate(zip(found.keys, stages, strict=True)):
        least = furthest[stage] / _NEAR
        is_begun = furthest[stage] > _STRONG and found.excess[row, i] >= least
        differ[key] = KeyDiff(key, matches[id(found.rows[i])], step if is_begun else None)
    return differ


def _shown(runs: Sequence[Run], key: str, step: int) -> Values:
    """The range of the references at a step, and the value of the run."""
    columns = [run.numbers([key])[key] for run in runs]
    value, *others = (float(c.value[np.flatnonzero(c.step <= step)[-1]]) for c in columns)
    return Values(f"{min(others):.9g} to {max(others):.9g}", value)
