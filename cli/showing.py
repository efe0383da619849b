"""`flexrec show`: what is in a recording, as tables."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from tabulate import tabulate

from flexrec.cli.choosing import chosen_keys
from flexrec.recorder.errors import RecordingError
from flexrec.recorder.reader import Recording, Series
from flexrec.recorder.wording import counted

__all__ = ["model_text", "recording_text"]

T = TypeVar("T")
_BREAKS = {ord("\n"): "\\n", ord("\t"): "\\t"}  # in a key; they would break a line of the table


def recording_text(path: Path, patterns: Sequence[str] = ()) -> str:
    """The facts of the run, and a row for each key, or for each that the patterns mean.

    Raises:
        RecordingError: a key's values are damaged: names the key.
        UnknownKeyError: a name or pattern fits no key.
    """
    with Recording(path) as run:
        chosen = chosen_keys(run, patterns)
        lines = [f"{path}: {run.state}"]
        facts = run.facts or {}
        for name in ("started", "host", "git_commit", "argv"):
            if facts.get(name):
                value = facts[name]
                text = " ".join(map(str, value)) if isinstance(value, list) else value
                lines.append(f"{name}: {text}")
        if run.config is not None:
            lines.append(f"config: {run.config}")
        logs = int(run.marks.is_log.sum())
        keys, events = counted(len(run), "key"), counted(run.event_count, "event")
        lines.append(f"{keys}, {events}, {counted(logs, 'log')}")
        rows = _naming_the_damaged(lambda keys: _rows(run, keys), chosen)
    headers = ("key", "kind", "values", "steps", "last", "min", "max", "mean", "bytes")
    rows = [[cell.translate(_BREAKS) for cell in row] for row in rows]
    return "\n".join([*lines, tabulate(rows, headers, disable_numparse=True)])


@dataclass
class _Summary:
    """What a row shows of a key's numbers; min, max and mean are of those that are finite."""

    count: int = 0
    steps: tuple[int, int] | None = None
    last: float = math.nan
    least: float = math.inf
    greatest: float = -math.inf
    total: float = 0.0
    finite: int = 0

    def take(self, series: Series) -> None:
        """Take in the next values."""
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

    def row(self) -> list[str]:
        """Kind, values, steps, last, min, max, mean."""
        found = (math.nan,) * 3
        if self.finite:
            found = self.least, self.greatest, self.total / self.finite
        shown = [f"{value:.6g}" for value in (self.last, *found)] if self.count else [""] * 4
        odd = self.count - self.finite
        count = f"{self.count}, {odd} not finite" if odd else str(self.count)
        return ["number", count, _span(self.steps), *shown]


def _naming_the_damaged(read: Callable[[Sequence[str]], T], keys: Sequence[str]) -> T:
    """What is read of the keys; an error names the key that cannot be read."""
    try:
        return read(keys)
    except RecordingError:
        for key in keys:
            try:
                read([key])
            except RecordingError as error:
                raise RecordingError(f"{error}: key {key!r} (-k chooses others)") from None
        raise


def _rows(run: Recording, keys: Sequence[str]) -> list[list[str]]:
    numbers = _summaries(run, [key for key in keys if run.is_number(key)])
    return [
        [key, *(numbers[key].row() if key in numbers else _other_row(run, key)), _size(run, key)]
        for key in keys
    ]


def _size(run: Recording, key: str) -> str:
    """What a key takes; nothing, where its arrays are an earlier key's."""
    size = run.stored_bytes(key)
    return f"{size:,}" if size or not len(run.index(key)) else "shared"


def _summaries(run: Recording, keys: Sequence[str]) -> dict[str, _Summary]:
    found = {key: _Summary() for key in keys}
    for series in run.parts(keys):
        found[series.key].take(series)
    return found


def _other_row(run: Recording, key: str) -> list[str]:
    step = run.index(key).step
    steps = (int(step.min()), int(step.max())) if len(step) else None
    return [run.kind(key), str(len(step)), _span(steps), "", "", "", ""]


def _span(steps: tuple[int, int] | None) -> str:
    return f"{steps[0]}–{steps[1]}" if steps else ""


def model_text(path: Path, patterns: Sequence[str] = ()) -> str:
    """The two-storey table of the last recorded statistics of each layer; raises as the other."""
    from flexrec.recorder.layer_table import layer_table

    with Recording(path) as run:
        chosen = chosen_keys(run, patterns)
        keys = [key for key in chosen if key.count("/") >= 2 and run.is_number(key)]
        found = _naming_the_damaged(lambda keys: _summaries(run, keys), keys)
        latest = {key: each.last for key, each in found.items() if each.count}
    statistics: dict[str, dict[str, dict[str, float]]] = {}
    for key, last in latest.items():
        rest, _, stat = key.rpartition("/")
        layer, _, source = rest.rpartition("/")
        statistics.setdefault(layer, {}).setdefault(source, {})[stat] = last
    if not statistics:
        return f"{path} has no layer statistics: record them with Recorder.watch(model)"
    return str(layer_table(statistics))
