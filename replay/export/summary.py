"""Summarise each key of a recording: count, steps, last, minimum, maximum and mean value."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from flexrec.recorder.errors import RecordingError
from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.series import Series

T = TypeVar("T")


@dataclass
class Summary:
    """The summary of a key's numbers; min, max and mean are of the finite ones."""

    count: int = 0
    steps: tuple[int, int] | None = None
    last: float = math.nan
    least: float = math.inf
    greatest: float = -math.inf
    total: float = 0.0
    finite: int = 0

    def take(self, series: Series) -> None:
        """Add the next values."""
        values = np.asarray(series.value)
        if not len(values):
            return
        first, last = int(series.step.min()), int(series.step.max())
        low, high = self.steps or (first, last)
        self.steps = min(low, first), max(high, last)
        self.count += len(values)
        self.last = float(values[-1])
        values = values[np.isfinite(values)]
        if len(values):
            self.least = min(self.least, float(values.min()))
            self.greatest = max(self.greatest, float(values.max()))
            with np.errstate(over="ignore"):
                self.total += float(values.sum())
            self.finite += len(values)

    def numbers(self) -> dict[str, float | int | None]:
        """The numbers by name; None if there are none."""
        found: list[float | None] = [None] * 3
        if self.finite:
            found = [self.least, self.greatest, self.total / self.finite]
        named = dict(zip(("min", "max", "mean"), found, strict=True))
        last = self.last if self.count else None
        return {"last": last, **named, "not_finite": self.count - self.finite}

    def row(self) -> list[str]:
        """The cells: kind, values, steps, last, min, max, mean."""
        found = (math.nan,) * 3
        if self.finite:
            found = self.least, self.greatest, self.total / self.finite
        shown = [f"{value:.6g}" for value in (self.last, *found)] if self.count else [""] * 4
        odd = self.count - self.finite
        count = f"{self.count}, {odd} not finite" if odd else str(self.count)
        return ["number", count, _span(self.steps), *shown]


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
        table.append({**row, **(Summary() if found is None else found).numbers()})
    return table


def summary_rows(run: Recording, keys: Sequence[str]) -> list[list[str]]:
    numbers = summaries(run, [key for key in keys if run.is_number(key)])
    return [
        [key, *(numbers[key].row() if key in numbers else _other_row(run, key)), _size(run, key)]
        for key in keys
    ]


def _size(run: Recording, key: str) -> str:
    """The stored size of a key; empty if it shares its arrays with an earlier key."""
    size = run.columns.stored_bytes(key)
    return f"{size:,}" if size or not len(run.columns.index(key)) else "shared"


def summaries(run: Recording, keys: Sequence[str]) -> dict[str, Summary]:
    found = {key: Summary() for key in keys}
    for series in run.columns.parts(keys):
        found[series.key].take(series)
    return found


def _other_row(run: Recording, key: str) -> list[str]:
    step = run.columns.index(key).step
    steps = (int(step.min()), int(step.max())) if len(step) else None
    return [run.kind(key), str(len(step)), _span(steps), "", "", "", ""]


def _span(steps: tuple[int, int] | None) -> str:
    return f"{steps[0]}–{steps[1]}" if steps else ""
