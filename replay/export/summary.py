"""Summarise each key of a recording: count, steps, last, minimum, maximum and mean value."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from flexrec.recorder.errors import RecordingError
from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.summary.statistics import Statistics

T = TypeVar("T")


def naming_the_damaged(read: Callable[[Sequence[str]], T], keys: Sequence[str]) -> T:
    """Read the keys; an error names the key that cannot be read."""
    try:
        return read(keys)
    except RecordingError:
        for key in keys:
            try:
                read([key])
            except RecordingError as error:
                raise type(error)(
                    f"{error.message}: key {key!r}", hint="keys= chooses others"
                ) from error
        raise


def summary_table(run: Recording, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The summary of each key as plain data; what a key of another kind lacks is None."""
    numbers = summaries(run, [key for key in keys if run.is_number(key)])
    table = []
    for key in keys:
        step, found = run.columns.index(key).step, numbers.get(key)
        row = {
            "key": key,
            "kind": run.kind(key),
            "values": len(step),
            "first_step": int(step.min()) if len(step) else None,
            "last_step": int(step.max()) if len(step) else None,
            "bytes": run.columns.stored_bytes(key),
        }
        table.append({**row, **_numbers(found or Statistics())})
    return table


def summary_rows(run: Recording, keys: Sequence[str]) -> list[list[str]]:
    numbers = summaries(run, [key for key in keys if run.is_number(key)])
    return [
        [
            key,
            *(_number_row(numbers[key]) if key in numbers else _other_row(run, key)),
            _size(run, key),
        ]
        for key in keys
    ]


def _size(run: Recording, key: str) -> str:
    """The stored size of a key; empty if it shares its arrays with an earlier key."""
    size = run.columns.stored_bytes(key)
    return f"{size:,}" if size or not len(run.columns.index(key)) else "shared"


def summaries(run: Recording, keys: Sequence[str]) -> dict[str, Statistics]:
    found = {key: Statistics() for key in keys}
    for series in run.columns.parts(keys):
        found[series.key].take(series.step, np.asarray(series.value))
    return found


def _numbers(of: Statistics) -> dict[str, float | int | None]:
    """The numbers by name; None if there are none."""
    found = (of.least, of.greatest, of.mean) if of.finite else (None,) * 3
    last = of.last if of.count else None
    named = dict(zip(("min", "max", "mean"), found, strict=True))
    return {"last": last, **named, "not_finite": of.not_finite}


def _number_row(of: Statistics) -> list[str]:
    """The cells: kind, values, steps, last, min, max, mean."""
    found = of.last, of.least, of.greatest, of.mean
    shown = [f"{value:.6g}" for value in found] if of.count else [""] * 4
    count = f"{of.count}, {of.not_finite} not finite" if of.not_finite else str(of.count)
    return ["number", count, _span(of.steps), *shown]


def _other_row(run: Recording, key: str) -> list[str]:
    step = run.columns.index(key).step
    steps = (int(step.min()), int(step.max())) if len(step) else None
    return [run.kind(key), str(len(step)), _span(steps), "", "", "", ""]


def _span(steps: tuple[int, int] | None) -> str:
    return f"{steps[0]}–{steps[1]}" if steps else ""
