"""Read metrics as CSV or JSON lines: what Lightning's and Keras's loggers, scripts, and `flexrec
export` write.

A row has a column for each key, or it is one value, with the columns key, step, time, value and
text. A column with one of the names in `STEPS` is the step, else rows are numbered; one with a name
in `TIMES` is the time, else the time is the file's.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from flexrec.recorder.errors import RecordingError
from flexrec.recorder.events import Add, Value
from flexrec.recorder.importing.source import Item, Notes

STEPS = ("step", "global_step", "_step", "iteration", "iter", "epoch")
TIMES = ("time", "wall_time", "walltime", "timestamp", "_timestamp")
_ONE_VALUE = {"key", "step", "time", "value"}
_LONGEST = 1 << 26  # characters of a line


def read_csv(files: tuple[Path, ...], notes: Notes) -> Iterator[Item]:
    """The rows of CSV files."""
    for path in files:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.DictReader(file, restkey="", restval=None)
            yield from _adds(path, _whole(path, rows, notes))


def read_json_lines(files: tuple[Path, ...], notes: Notes) -> Iterator[Item]:
    """The objects of JSON lines files; keys of nested ones are such as `outer/inner`."""
    for path in files:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            yield from _adds(path, _objects(path, file, notes))


def is_metrics(path: Path) -> bool:
    """Whether a CSV file's first line names a step, so that its rows are metrics."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        names = next(csv.reader([file.readline(_LONGEST)]), [])
    return any(name.lower() in STEPS for name in names)


def _whole(path: Path, rows: "csv.DictReader[str]", notes: Notes) -> Iterator[dict[str, Any]]:
    """The rows that are whole: one that has too few cells was cut off."""
    csv.field_size_limit(_LONGEST)
    try:
        for row in rows:
            if None in row.values() or "" in row:
                notes.damage.append(f"{path}: line {rows.line_num} is not whole, and left out")
            else:
                yield row
    except csv.Error as error:
        notes.damage.append(f"{path}: line {rows.line_num}: {error}; the rest is left out")


def _objects(path: Path, file: TextIO, notes: Notes) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST), ""), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError):
            notes.damage.append(f"{path}: line {number} is not a JSON object, and left out")
            continue
        yield flat(found)


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The values of nested objects, under keys such as `outer/inner`."""
    found = dict[str, Any]()
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        found |= flat(value, f"{before}{name}/") if nested else {f"{before}{name}": value}
    return found


def _adds(path: Path, rows: Iterator[dict[str, Any]]) -> Iterator[Add]:
    written = path.stat().st_mtime
    names: tuple[str, ...] | None = None
    for number, row in enumerate(rows):
        if tuple(row) != names:
            names, lower = tuple(row), {name.lower(): name for name in row}
            step = next((lower[name] for name in STEPS if name in lower), "")
            time = next((lower[name] for name in TIMES if name in lower), "")
            is_one = row.keys() >= _ONE_VALUE
        at = _whole_number(row.get(step), number) if step else number
        when = _seconds(row.get(time), written) if time else written
        if is_one:
            value = row["value"] if row["value"] not in (None, "") else row.get("text")
            found = {row["key"]: _cell(value) if row["value"] not in (None, "") else value}
        else:
            found = {key: _cell(row[key]) for key in names if key not in (step, time)}
        values = {key: value for key, value in found.items() if value is not None}
        if values:
            yield Add(values, at, when)


def _cell(value: Any) -> Value | None:
    """A number, or else the text; None if it is empty."""
    if value is None or value == "":
        return None
    if isinstance(value, (list, tuple)):
        return _array(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def _array(values: Any) -> Value | None:
    import numpy as np

    try:
        return np.asarray(values, np.float64) if values else None
    except (TypeError, ValueError):
        return json.dumps(values)


def _whole_number(value: Any, otherwise: int) -> int:
    for convert in (int, lambda each: int(float(each))):
        with suppress(TypeError, ValueError, OverflowError):
            return convert(value)
    return otherwise


def _seconds(value: Any, otherwise: float) -> float:
    """Seconds since 1970, given as such or as an ISO date."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        try:
            return datetime.fromisoformat(str(value)).timestamp()
        except ValueError:
            return otherwise
    return seconds if math.isfinite(seconds) else otherwise


def check_table(path: Path) -> None:
    """Raise RecordingError if a file has no rows of metrics."""
    if path.suffix.lower() == ".csv" and not is_metrics(path):
        raise RecordingError(
            f"{path}: no column is called {', '.join(STEPS[:-1])} or {STEPS[-1]}; name the column "
            "of the steps so"
        )
