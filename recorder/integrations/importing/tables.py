"""Read metrics as CSV or JSON lines: what Lightning's and Keras's loggers, scripts, and `flexrec
export` write.

A row has a column for each key, or it is one value, with the columns key, step, time, value and
text. A column with one of the names in `STEPS` is the step, else rows are numbered; one with a name
in `TIMES` is the time, else the time is the file's.
"""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

from flexrec.recorder.errors import RecordingError, listed
from flexrec.recorder.events import Add, Value
from flexrec.recorder.integrations.importing.logged import json_float, value_of_list
from flexrec.recorder.integrations.importing.source import Item, Notes

STEPS = ("step", "global_step", "_step", "iteration", "iter", "epoch")
TIMES = ("time", "wall_time", "walltime", "timestamp", "_timestamp")
_ONE_VALUE = {"key", "step", "time", "value"}
_EMPTY = ("", "NA")  # NA is of Keras's CSVLogger
_LONGEST = 1 << 26  # characters of a line
_NUMBER = re.compile(
    r" *[+-]?((?P<decimal>(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?)|nan|inf|infinity) *", re.ASCII | re.I
)
_NO_UTF8 = re.compile("[\udc80-\udcff]")
_WHOLE = re.compile(r" *[+-]?\d{1,19} *", re.ASCII)

Row: TypeAlias = tuple[int, dict[str, Any]]  # the line where it ends, and its values by name


def read_csv(files: tuple[Path, ...], notes: Notes) -> Iterator[Item]:
    """The rows of CSV files."""
    for path in files:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from _adds(path, _whole(path, _utf8(file, notes), notes), notes, _cell)


def read_json_lines(files: tuple[Path, ...], notes: Notes) -> Iterator[Item]:
    """The objects of JSON lines files; keys of nested ones are such as `outer/inner`."""
    for path in files:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = _utf8(iter(lambda: file.readline(_LONGEST), ""), notes)
            yield from _adds(path, _objects(path, lines, notes), notes, _value)


def is_metrics(path: Path) -> bool:
    """Whether a CSV file's first line names a step, so that its rows are metrics."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        names: list[str] = next(_cells(iter([file.readline(_LONGEST)])), [])
    return any(name.lower() in STEPS for name in names)


def _utf8(lines: Iterable[str], notes: Notes) -> Iterator[str]:
    """The lines, with U+FFFD for what was not UTF-8, which surrogates stand for."""
    for line in lines:
        if not line.isascii() and _NO_UTF8.search(line):
            line = notes.text(line.encode("utf-8", "surrogateescape"))
        yield line


def _cells(lines: Iterator[str]) -> Any:
    csv.field_size_limit(_LONGEST)
    return csv.reader(lines)


def _whole(path: Path, lines: Iterator[str], notes: Notes) -> Iterator[Row]:
    """The rows that are whole: one that has too few cells was cut off."""
    text = ""

    def read() -> Iterator[str]:
        nonlocal text
        for text in lines:  # noqa: UP028 - whose last one is needed
            yield text

    rows = _cells(read())
    try:
        names = _names(path, next(rows, []), notes)
        last = rows.line_num
        for cells in rows:
            first, last = last + 1, rows.line_num
            if len(cells) == len(names):
                found = zip(names, cells, strict=True)
                yield rows.line_num, {name: cell for name, cell in found if name}
                if _has_no_end(text, cells):
                    notes.damage.append(f"{path}: line {last} has no end: it may be cut off")
            elif cells:
                which = f"line {last} is" if first == last else f"lines {first} to {last} are"
                notes.damage.append(f"{path}: {which} not whole, and left out")
    except csv.Error as error:
        notes.damage.append(f"{path}: line {rows.line_num}: {error}; the rest is left out")


def _has_no_end(line: str, cells: list[str]) -> bool:
    """Whether a row lacks the end of its last line, or of the quotes around its last cell."""
    if not line.endswith(("\n", "\r")):
        return True
    return "".join(cells[-1:]).endswith(("\n", "\r")) and line.rstrip("\r\n") != '"'


def _names(path: Path, header: list[str], notes: Notes) -> list[str]:
    """The columns' names, each once; a column without one, such as pandas' index, is left out."""
    names = list[str]()
    for name in header:
        if name and name in names:
            numbered = (f"{name}_{number}" for number in count(2))
            new = next(each for each in numbered if each not in names and each not in header)
            notes.damage.append(f"{path}: several columns are called {name}; one is now {new}")
            name = new
        names.append(name)
    return names


def _objects(path: Path, lines: Iterator[str], notes: Notes) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        repeated = list[str]()
        try:
            pairs = partial(_object, repeated)
            found = json.loads(line, object_pairs_hook=pairs, parse_float=json_float)
            if not isinstance(found, dict):
                raise ValueError("not an object")
            row = _flat(found, repeated)
        except (ValueError, RecursionError):
            notes.damage.append(f"{path}: line {number} is not a JSON object, and left out")
            continue
        if repeated:
            what = f"has {listed(map(repr, repeated))} more than once; the last is imported"
            notes.damage.append(f"{path}: line {number} {what}")
        yield number, row


def _object(repeated: list[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated += [name for name, number in Counter(n for n, _ in pairs).items() if number > 1]
    return found


def _flat(values: Mapping[str, Any], repeated: list[str], before: str = "") -> dict[str, Any]:
    """The values of nested objects, under keys such as `outer/inner`."""
    found = dict[str, Any]()
    for name, value in values.items():
        key = f"{before}{name}"
        inner = _flat(value, repeated, f"{key}/") if isinstance(value, dict) else {key: value}
        repeated += found.keys() & inner.keys()
        found |= inner
    return found


def _adds(
    path: Path, rows: Iterator[Row], notes: Notes, read: Callable[[Any], Value | None]
) -> Iterator[Add]:
    written = path.stat().st_mtime
    names: tuple[str, ...] | None = None
    has_steps = False
    for number, (line, row) in enumerate(rows):
        if tuple(row) != names:
            names = tuple(row)
            step, time = _column(names, STEPS), _column(names, TIMES)
            has_steps = has_steps or step != ""
            is_one = row.keys() >= _ONE_VALUE
        at = _step(row.get(step), number, notes) if has_steps else number
        when = _seconds(row[time], written, notes) if time else written
        if not is_one:
            given, convert = {key: row[key] for key in names if key not in (step, time)}, read
        elif not isinstance(row["key"], str):
            notes.damage.append(f"{path}: line {line}: its key is no text; it is left out")
            continue
        elif row["value"] in (None, ""):
            given, convert = {row["key"]: row.get("text")}, _whole_text
        else:
            given, convert = {row["key"]: row["value"]}, read
        values, too_large = _converted(given, convert)
        if too_large:
            what = f"too large a number, and left out: {listed(map(repr, too_large))}"
            notes.damage.append(f"{path}: line {line}: {what}")
        if values:
            yield Add(values, at, when)


def _converted(
    given: dict[str, Any], convert: Callable[[Any], Value | None]
) -> tuple[dict[str, Value], list[str]]:
    """The values that are not empty, and the names of the numbers that are too large."""
    values, too_large = dict[str, Value](), list[str]()
    for key, each in given.items():
        try:
            value = convert(each)
        except OverflowError:
            too_large.append(key)
            continue
        if value is not None:
            values[key] = value
    return values, too_large


def _column(names: tuple[str, ...], wanted: tuple[str, ...]) -> str:
    """The column with the first of the names, in this spelling or else in capitals; or ""."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((name if name in names else lower[name] for name in wanted if name in lower), "")


def _cell(text: str) -> Value | None:
    """The number in a cell, or else its text; None if it is empty, or Keras has no value."""
    number = _number(text)
    if number is None:
        return None if text in _EMPTY else text
    return number


def _number(text: str) -> float | None:
    """The number that a text is: decimal, NaN or infinity; None if it is too large, or no number.

    Python's float takes more, such as 1_000 and the digits of every script.
    """
    if not (found := _NUMBER.fullmatch(text)):
        return None
    number = float(text)
    return None if found["decimal"] and math.isinf(number) else number


def _value(value: Any) -> Value | None:
    """A value of JSON; None if it is empty."""
    if isinstance(value, list):
        return value_of_list(value)
    return _text(value) if value is None or isinstance(value, str) else float(value)


def _text(value: Any) -> Value | None:
    return None if value is None or value == "" else str(value)


def _whole_text(value: Any) -> Value | None:
    """A text, an empty one too: of a row that is one value, it is the value."""
    return None if value is None else str(value)


def _step(value: Any, row: int, notes: Notes) -> int:
    """The step that a row gives; else, named in the notes, the number of the row."""
    if isinstance(value, int):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    number = _number(value) if isinstance(value, str) else value
    if not isinstance(number, float) or not math.isfinite(number):
        notes.left_out["step that is no number; the row's number is taken"] += 1
        return row
    if not number.is_integer():
        notes.left_out["fraction of a step, which is rounded down"] += 1
    return math.floor(number)


def _seconds(value: Any, otherwise: float, notes: Notes) -> float:
    """Seconds since 1970, given as such or as an ISO date; else, named, the file's time."""
    with suppress(OverflowError, OSError, ValueError):
        number = _number(value) if isinstance(value, str) else value
        if isinstance(number, (int, float)) and math.isfinite(number):
            return float(number)
        if number is None and value is not None:
            return datetime.fromisoformat(value).timestamp()
    notes.left_out["time that is neither seconds nor a date; the file's is taken"] += 1
    return otherwise


def check_table(path: Path) -> None:
    """Raise RecordingError if a file has no rows of metrics."""
    if path.suffix.lower() == ".csv" and not is_metrics(path):
        raise RecordingError(
            f"{path}: no column is called {', '.join(STEPS[:-1])} or {STEPS[-1]}; name the column "
            "of the steps so"
        )
