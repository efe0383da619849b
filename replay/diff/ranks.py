"""Compare the ranks of a run: find keys on which all agree at first, and differ from some step on.

Values that an all-reduce makes equal on every rank, such as weights and reduced gradients, stay
equal unless something goes wrong. Values from each rank's own data differ from the start. If all
weights do so too, and are not shards, the ranks train models of their own.
"""

from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import reduce
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import RecordingError, counted, listed
from flexrec.recorder.files.names import ON_ACCELERATOR, is_fingerprint
from flexrec.recorder.layers.tracing.format import VALUES, Event
from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.arrays import Ints
from flexrec.replay.diff.blame.places import is_of_the_clock, place_of
from flexrec.replay.diff.blame.traces import traced_steps
from flexrec.replay.diff.columns import Tolerance
from flexrec.replay.diff.compare import names_of
from flexrec.replay.diff.model import RankSplit
from flexrec.replay.diff.result import RanksDiff
from flexrec.replay.diff.run import Column, Run

_EXACT = Tolerance()
_REPLICATED = ("weights", "grad_weights", "updates", "state")  # sources equal on every rank
_TRACED = ("grad", "state", "new_weights")  # events of a trace that are equal on every rank


def diff_ranks(
    recordings: Sequence[Recording],
    *,
    patterns: Sequence[str] = (),
    tolerance: Tolerance = _EXACT,
) -> RanksDiff:
    """Find keys that agree on all ranks at the first steps and differ at later ones.

    Args:
        recordings: one for each rank.
        patterns: names and patterns of keys; empty means all keys of numbers, and the gradients,
            states and weights of traces.
        tolerance: the allowed difference from the numbers of the first recording. If it is not 0,
            fingerprints are not compared.

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
    keys = [key for key in keys if not tolerance or not is_fingerprint(key)]
    has_traces = not patterns and not tolerance and all(VALUES in run for run in runs)
    if not keys and not has_traces:
        what = f"a key that fits {listed(patterns)}" if patterns else "a key of numbers"
        raise RecordingError(f"{counted(len(runs), 'recording')} do not all have {what}")
    agreeing, split, never, unlike = 0, list[RankSplit](), list[RankSplit](), list[str]()
    for key, columns in chain(_numbers(runs, keys), _traced(runs) if has_traces else ()):
        rows = _in_common(columns)
        if _is_fingerprint(key):
            are_alike = _are_alike(rows.values)
            unlike += [] if are_alike.all() else [key]
            if len(rows.step) and not are_alike.any():
                continue
            values = [each[are_alike] for each in rows.values]
            rows = _Rows(rows.step[are_alike], values, rows.first)
        found = _split(key, names, rows, tolerance)
        agreeing += found is None
        if found is not None:
            (never if found.since is None else split).append(found)
    sharded = _sharded_layers(recordings)
    if not any(_is_of_weights(key) for key in {*keys} - {each.key for each in never}):
        own = [each for each in never if _is_of_weights(each.key, sharded)]
        split += own
        never = [each for each in never if each not in own]
    if not agreeing and not split:
        mixed = f" ({listed(unlike, most=3)}: of the CPU on some, of an accelerator on others)"
        raise RecordingError(
            f"{counted(len(runs), 'recording')} cannot be compared as ranks: no key of numbers "
            f"agrees at any step{mixed if unlike else ''}; record what is equal on every rank, "
            "such as weights"
        )
    split.sort(key=lambda each: each.step)
    of_weights = [each.key for each in never if _is_of_weights(each.key, sharded)]
    apart = dict.fromkeys(place_of(key).layer for key in of_weights)
    counts = agreeing, len(never)
    return RanksDiff(
        tuple(names),
        not split,
        *counts,
        tuple(split),
        tuple(apart),
        exact=not tolerance,
        unlike=tuple(unlike),
    )


def _numbers(runs: Sequence[Run], keys: Sequence[str]) -> Iterator[tuple[str, list[Column]]]:
    """Keys of numbers, and their columns of each run."""
    for group in runs[0].groups(keys):
        columns = [run.numbers(group) for run in runs]
        yield from ((key, [each[key] for each in columns]) for key in group)


def _traced(runs: Sequence[Run]) -> Iterator[tuple[str, list[Column]]]:
    """Events of the traces that are equal on every rank, and their fingerprints in each run."""
    columns = [_columns(run) for run in runs]
    for name in columns[0]:
        if all(name in each for each in columns):
            yield name, [each[name] for each in columns]


def _columns(run: Run) -> dict[str, Column]:
    """The fingerprints of the chosen events of a run's trace, by the events as texts."""
    orders: dict[tuple[Event, ...], tuple[list[int], list[Ints]]] = {}
    for traced in traced_steps(run):
        steps, rows = orders.setdefault(traced.events, ([], []))
        steps.append(traced.step)
        rows.append(traced.values)
    parts: dict[str, list[tuple[list[int], Ints]]] = {}
    for events, (steps, rows) in orders.items():
        values = np.stack(rows)
        for i, event in enumerate(events):
            if event.kind in _TRACED:
                parts.setdefault(str(event), []).append((steps, values[:, i]))
    return {name: _column(found) for name, found in parts.items()}


def _column(parts: Sequence[tuple[list[int], Ints]]) -> Column:
    steps = np.concatenate([steps for steps, _ in parts])
    values = np.concatenate([values for _, values in parts]).astype(np.float64)
    order = np.argsort(steps, kind="stable")
    return Column(steps[order], values[order])


def _is_fingerprint(key: str) -> bool:
    return is_fingerprint(key) or _is_traced(key)


def _is_traced(key: str) -> bool:
    return key.split(" ")[0] in _TRACED


def _is_of_weights(key: str, sharded: Collection[str] = ()) -> bool:
    """Whether a key is a statistic of weights, and not of those of some layers."""
    layer, *rest = key.rsplit("/", 2)
    return rest[:1] == ["weights"] and layer not in sharded


def _sharded_layers(recordings: Sequence[Recording]) -> set[str]:
    models = [model for each in recordings for model in each.models.values()]
    return {name for model in models for name, layer in model.items() if layer.get("shard")}


class _Rows(NamedTuple):
    """The steps that all ranks have, the last value of each on every rank, and the first step."""

    step: Ints
    values: list[NDArray[np.float64]]
    first: int


def _in_common(columns: Sequence[Column]) -> _Rows:
    latest = [_latest(column) for column in columns]
    common: Ints = reduce(np.intersect1d, (column.step for column in latest))
    values = [column.value[np.searchsorted(column.step, common)] for column in latest]
    return _Rows(common, values, int(latest[0].step[0]) if len(latest[0].step) else 0)


def _are_alike(fingerprints: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """At which steps all ranks' are of the CPU, or all of an accelerator."""
    kinds = np.array([each >= ON_ACCELERATOR for each in fingerprints])
    return np.asarray(kinds.all(0) | ~kinds.any(0))


def _split(key: str, names: Sequence[str], rows: _Rows, tolerance: Tolerance) -> RankSplit | None:
    """The point from which a key differs; None if it always agrees."""
    if not len(rows.step):
        return RankSplit(key, rows.first, None, ())
    agrees = ~np.any([tolerance.beyond(rows.values[0], each) for each in rows.values[1:]], axis=0)
    if agrees.all():
        return None
    at = int(np.argmin(agrees))
    since = int(rows.step[at - 1]) if _is_no_chance(key, rows.values[0][:at]) else None
    odd = _odd_ones(names, [each[at : at + 1] for each in rows.values], tolerance)
    return RankSplit(key, int(rows.step[at]), since, odd)


def _latest(column: Column) -> Column:
    """The last value of each step, in the order of steps."""
    steps, index = np.unique(column.step[::-1], return_index=True)
    return Column(steps, column.value[::-1][index])


def _is_no_chance(key: str, agreed: NDArray[np.float64]) -> bool:
    """Whether the agreement is more than chance, unlike an accuracy that is 0 at first."""
    is_replicated = place_of(key).source in _REPLICATED or _is_traced(key)
    least = 1 if is_replicated else 2
    return len(np.unique(agreed)) >= least


def _odd_ones(
    names: Sequence[str], values: Sequence[NDArray[np.float64]], tolerance: Tolerance
) -> tuple[str, ...]:
    """The ranks that differ from the majority; without one, those that differ from the first."""
    alike = [[not tolerance.beyond(one, other)[0] for other in values] for one in values]
    most = max(range(len(values)), key=lambda i: sum(alike[i]))
    return tuple(name for name, is_alike in zip(names, alike[most], strict=True) if not is_alike)
