"""Compare the ranks of a run: find keys on which all agree at first, and differ from some step on.

Values that an all-reduce makes equal on every rank, such as weights and reduced gradients, stay
equal unless something goes wrong. Values from each rank's own data differ from the start. If all
weights do so too, and are not shards, the ranks train models of their own.
"""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import RecordingError, counted, listed
from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.arrays import Ints
from flexrec.replay.diff.blame.places import is_of_the_clock, place_of
from flexrec.replay.diff.columns import Tolerance
from flexrec.replay.diff.compare import names_of
from flexrec.replay.diff.model import RankSplit
from flexrec.replay.diff.result import RanksDiff
from flexrec.replay.diff.run import Column, Run

_EXACT = Tolerance()
_REPLICATED = ("weights", "grad_weights", "updates", "state")  # sources equal on every rank


def diff_ranks(
    recordings: Sequence[Recording],
    *,
    patterns: Sequence[str] = (),
    tolerance: Tolerance = _EXACT,
) -> RanksDiff:
    """Find keys that agree on all ranks at the first steps and differ at later ones.

    Args:
        recordings: one for each rank.
        patterns: names and patterns of keys; empty means all keys of numbers.
        tolerance: the allowed difference from the numbers of the first recording.

    Raises:
        RecordingError: there are fewer than two, they have no such key in common, or none agrees.
    """
    if len(recordings) < 2:
        raise RecordingError(f"ranks are two recordings or more, got {len(recordings)}")
    names = names_of([each.path for each in recordings])
    runs = [Run(name, [each]) for name, each in zip(names, recordings, strict=True)]
    keys = [key for key in runs[0] if all(key in r and r.is_number(key) for r in runs)]
    if patterns:
        keys = [key for key in keys if any(key == p or fnmatchcase(key, p) for p in patterns)]
    else:
        keys = [key for key in keys if not is_of_the_clock(key)]
    if not keys:
        what = f"a key that fits {listed(patterns)}" if patterns else "a key of numbers"
        raise RecordingError(f"{counted(len(runs), 'recording')} do not all have {what}")
    agreeing, split, never = 0, list[RankSplit](), list[RankSplit]()
    for group in runs[0].groups(keys):
        columns = [run.numbers(group) for run in runs]
        for key in group:
            found = _split(key, dict(zip(names, (c[key] for c in columns), strict=True)), tolerance)
            agreeing += found is None
            if found is not None:
                (never if found.since is None else split).append(found)
    sharded = _sharded_layers(recordings)
    if not any(_is_of_weights(key) for key in {*keys} - {each.key for each in never}):
        own = [each for each in never if _is_of_weights(each.key, sharded)]
        split += own
        never = [each for each in never if each not in own]
    if not agreeing and not split:
        raise RecordingError(
            f"{counted(len(runs), 'recording')} cannot be compared as ranks: no key of numbers "
            "agrees at any step; record what is equal on every rank, such as weights"
        )
    split.sort(key=lambda each: each.step)
    of_weights = [each.key for each in never if _is_of_weights(each.key, sharded)]
    apart = dict.fromkeys(place_of(key).layer for key in of_weights)
    counts = agreeing, len(never)
    return RanksDiff(
        tuple(names), not split, *counts, tuple(split), tuple(apart), exact=not tolerance
    )


def _is_of_weights(key: str, sharded: Collection[str] = ()) -> bool:
    """Whether a key is a statistic of weights, and not of those of some layers."""
    layer, *rest = key.rsplit("/", 2)
    return rest[:1] == ["weights"] and layer not in sharded


def _sharded_layers(recordings: Sequence[Recording]) -> set[str]:
    models = [model for each in recordings for model in each.models.values()]
    return {name for model in models for name, layer in model.items() if layer.get("shard")}


def _split(key: str, columns: Mapping[str, Column], tolerance: Tolerance) -> RankSplit | None:
    """The point from which a key differs; None if it always agrees."""
    latest = [_latest(column) for column in columns.values()]
    common: Ints = reduce(np.intersect1d, (column.step for column in latest))
    rows = [column.value[np.searchsorted(column.step, common)] for column in latest]
    agrees = ~np.any([tolerance.beyond(rows[0], row) for row in rows[1:]], axis=0)
    if not len(common):
        return RankSplit(key, int(latest[0].step[0]) if len(latest[0].step) else 0, None, ())
    if agrees.all():
        return None
    at = int(np.argmin(agrees))
    since = int(common[at - 1]) if _is_no_chance(key, rows[0][:at]) else None
    odd = _odd_ones(list(columns), [row[at : at + 1] for row in rows], tolerance)
    return RankSplit(key, int(common[at]), since, odd)


def _latest(column: Column) -> Column:
    """The last value of each step, in the order of steps."""
    steps, index = np.unique(column.step[::-1], return_index=True)
    return Column(steps, column.value[::-1][index])


def _is_no_chance(key: str, agreed: NDArray[np.float64]) -> bool:
    """Whether the agreement is more than chance, unlike an accuracy that is 0 at first."""
    least = 1 if place_of(key).source in _REPLICATED else 2
    return len(np.unique(agreed)) >= least


def _odd_ones(
    names: Sequence[str], values: Sequence[NDArray[np.float64]], tolerance: Tolerance
) -> tuple[str, ...]:
    """The ranks that differ from the majority; without one, those that differ from the first."""
    alike = [[not tolerance.beyond(one, other)[0] for other in values] for one in values]
    most = max(range(len(values)), key=lambda i: sum(alike[i]))
    return tuple(name for name, is_alike in zip(names, alike[most], strict=True) if not is_alike)
