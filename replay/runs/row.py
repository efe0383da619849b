"""The row of a run: its columns by name, from the file's summary, or else by opening the file.

A recording may come from anyone. Names and values are texts and numbers that SQLite can hold, and
nothing else; whatever a summary claims, no error of it leaves this module.
"""

import json
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flexrec.recorder.errors import DamagedError, FlexrecError, NotARecordingError, named
from flexrec.recorder.files.lock import seems_held
from flexrec.recorder.storage.summary.head import glance
from flexrec.replay.runs.tags import tags_of

if TYPE_CHECKING:
    from flexrec.recorder.recording import Recording

Cell = str | int | float | None
STATISTICS = ("count", "not_finite", "step", "last", "min", "min_at", "max", "max_at", "mean")
"""The statistics of a key, each a column such as `loss.min`."""

_DEPTH, _TEXT, _NAME = 8, 4096, 300  # levels of a config; characters of a cell, and of a name
_INFINITE = {"inf": math.inf, "-inf": -math.inf}
_KEYS, _CELLS = 1000, 15_000  # keys of a recording that is opened; cells of a row, at most
_VALUES, _SHOWN = 5000, 500  # cells of a config, and of the facts, so that the others have room
_LARGE, _MOST = 1 << 63, 1 << 40  # SQLite's integers are smaller; keys that one may claim to lack
_NO_FACTS = {"started", "argv", "resumed", "merged", "git_patch"}  # have other columns, or none
_NOT_FACTS = {"config", "error", "name", "note", "path", "seconds", "tag", "tags"}  # as they begin
_CONSTANTS = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}  # as in a summary


class Row(NamedTuple):
    """A run as the index holds it.

    Attributes:
        cells: the columns; empty for a file that is no recording.
        config: the config as JSON text.
        is_live: whether the run has not ended, or was killed.
        left_out: the number of keys that are not among the columns.
        created: when it began, in seconds since 1970; 0 if that is unknown.
    """

    cells: dict[str, Cell]
    config: str = "null"
    is_live: bool = False
    left_out: int = 0
    created: int | float = 0


def row_of(path: str, asked: Sequence[str] = ()) -> Row:
    """The row of the recording at the path; says what is wrong in the columns state and error.

    Of a file that cannot be opened it has what the summary says.

    Args:
        asked: keys that are to be among the columns, however many keys there are.
    """
    claimed: dict[str, Any] | None = None
    try:
        claimed = glance(path)
        row = _row(path, _found(path, claimed, asked))
        has_ended = row.cells["state"] == "killed" and (glance(path) or {}).get("state") == "closed"
        return row_of(path, asked) if has_ended else row  # it was closed meanwhile
    except (FlexrecError, OSError) as error:
        if claimed is None and isinstance(error, NotARecordingError):
            return Row({})
        failure = _failure(path, error)
    except Exception:  # noqa: BLE001 - a summary may claim anything, and is one row of many
        claimed = None
        failure = {"state": "damaged", "error": "its summary is none that flexrec writes"}
    try:
        return _row(path, {**(claimed or {}), **failure})
    except Exception:  # noqa: BLE001 - as above
        return _row(path, failure)


def _found(path: str, claimed: dict[str, Any] | None, asked: Sequence[str]) -> dict[str, Any]:
    """What the summary of a closed file says; or else, or if it lacks something, the file."""
    if claimed is None or claimed.get("state") == "live":
        return _opened(path, None, asked)
    left_out = claimed.get("left_out", {})
    is_all = not (left_out.get("config") or (left_out.get("keys") and asked))
    return claimed if is_all else _opened(path, claimed, asked)


def _failure(path: str, error: FlexrecError | OSError) -> dict[str, Any]:
    if not isinstance(error, FlexrecError):
        return {"state": "unreadable", "error": error.strerror or str(error)}
    is_damaged = isinstance(error, DamagedError | NotARecordingError)
    return {"state": "damaged" if is_damaged else "unreadable", "error": _reason(error, path)}


def _reason(error: FlexrecError, path: str) -> str:
    """The message without the path and the state, which are columns."""
    _, is_damaged, what = error.message.partition(" is damaged: ")
    return what if is_damaged else error.message.removeprefix(f"{named(path)} ")


def key_of(column: str, columns: Collection[str]) -> str:
    """The key of a column of statistics, such as `loss` of `loss.min`; empty for another column.

    Of what is named as a config value is, only a key of numbers counts: it has every statistic.
    """
    key, _, statistic = column.rpartition(".")
    needed = STATISTICS if column.startswith("config.") else ("count",)
    is_one = statistic in STATISTICS and all(f"{key}.{each}" in columns for each in needed)
    return key if is_one else ""


def as_here(row: Row, path: str, asked: Sequence[str] = ()) -> Row:
    """A row that another process read, with the local time and a state as seen from here."""
    cells = dict(row.cells)
    if "started" in cells:
        cells["started"] = _date(row.created)
    if row.is_live:
        cells["state"] = live_state(path)
        if cells["state"] == "killed" != row.cells["state"]:
            return row_of(path, asked)  # it has ended since, or was killed
    return row._replace(cells=cells)


def live_state(path: str) -> str:
    """The state of a run that has not ended: recording or killed."""
    return "recording" if seems_held(Path(path)) else "killed"


def _row(path: str, found: Mapping[str, Any]) -> Row:
    state = str(found.get("state"))
    if state == "live":
        state = live_state(path)
    created, ended = _number(found.get("created")), _number(found.get("ended"))
    cells: dict[str, Cell] = {"state": state}
    if created:
        cells["started"] = _date(created)
        if ended:
            cells["seconds"] = _number(max(float(ended - created), 0.0))
    for name in ("events", "resumes", "dropped"):
        if name in found:
            cells[name] = _number(found[name])
    facts = found.get("facts") or {}
    shown = _flat({k: v for k, v in facts.items() if k not in _NO_FACTS}, "", _DEPTH)
    shown = ((k, v) for k, v in shown if k.partition(".")[0] not in _NOT_FACTS)
    tags = tags_of(path)
    parts = [
        *islice(_flat(found.get("config"), "config", _DEPTH), _VALUES),
        *islice(shown, _SHOWN),
        ("argv", _cell(" ".join(map(str, facts.get("argv") or ())))),
        ("tags", ", ".join(sorted(tags)) or None),
        ("note", "; ".join(note for note in tags.values() if note) or None),
        *((f"tag.{name}", note) for name, note in tags.items()),
        ("error", found.get("error")),
    ]
    for name, value in parts:
        if len(name) <= _NAME and (value is not None or name.startswith("config.")):
            cells.setdefault(_clean(name), _cell(value))
    names = found.get("statistics")
    named = tuple(map(str, names)) if isinstance(names, list) else STATISTICS
    for key, values in (found.get("keys") or {}).items():
        for column, value in zip(_columns(key, named), values, strict=False):
            if column and column not in cells:
                cells[column] = _number(value)
    left_out = (found.get("left_out") or {}).get("keys", 0)
    return Row(
        dict(islice(cells.items(), _CELLS)),
        json.dumps(found.get("config")),
        found.get("state") == "live",
        left_out if isinstance(left_out, int) and 0 <= left_out < _MOST else 0,
        created or 0,
    )


@lru_cache(4096)
def _columns(key: str, names: Sequence[str]) -> list[str]:
    """The columns of a key's statistics; "" for those that are unknown, as of a newer flexrec."""
    known = len(key) <= _NAME
    return [_clean(f"{key}.{name}") if known and name in STATISTICS else "" for name in names]


def _opened(path: str, claimed: Mapping[str, Any] | None, asked: Sequence[str]) -> dict[str, Any]:
    """What a summary would say, from the recording itself; h5py and numpy are imported here.

    Args:
        claimed: the summary, if it only lacks a part of the config or keys.
        asked: as for `row_of`.
    """
    from flexrec.recorder.recording import Recording

    with Recording(path) as run:
        if claimed is not None:
            more = [key for key in asked if key in run and key not in claimed["keys"]]
            keys = {**claimed["keys"], **_lines(run, more)[0]}
            return {**claimed, "config": _strict(run.config), "keys": keys}
        found: dict[str, Any] = {
            "state": "closed" if run.complete else "live",
            "created": run.created,
            "config": _strict(run.config),
            "facts": run.facts,
        }
        try:
            found |= _values(run, asked)
        except DamagedError as error:
            found |= {"state": "damaged", "error": _reason(error, path)}
        return found


def _strict(config: Any) -> Any:
    """The config with NaN and infinities as texts, as a summary has it."""
    return json.loads(json.dumps(config), parse_constant=_CONSTANTS.__getitem__)


def _values(run: "Recording", asked: Sequence[str]) -> dict[str, Any]:
    chosen = sorted(run.keys(), key=lambda key: (key not in asked, key.count("/")))[:_KEYS]
    lines, ended = _lines(run, chosen)
    if len(run.marks.time):
        ended = max(ended, float(run.marks.time[-1]))
    return {
        "events": run.event_count,
        "resumes": run.resumes,
        "dropped": run.dropped,
        "ended": ended,
        "keys": {key: lines[key] for key in run if key in lines},
        "left_out": {"keys": len(run) - len(lines)},
    }


def _lines(run: "Recording", keys: Sequence[str]) -> tuple[dict[str, Any], float]:
    """The statistics of keys, as in a summary; and the time of the last value."""
    from flexrec.recorder.storage.summary.contents import line_of
    from flexrec.recorder.storage.summary.statistics import Statistics

    counts, ended = run.counts(), 0.0
    found = {key: Statistics() for key in keys if run.is_number(key)}
    for series in run.columns.parts(found):
        found[series.key].take(series.step, series.value)
        ended = max(ended, float(series.time[-1])) if len(series.time) else ended
    return {key: line_of(found[key]) if key in found else [counts[key]] for key in keys}, ended


def _flat(tree: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Nested names joined by dots; lists, and what is nested deeper, as JSON texts."""
    if isinstance(tree, dict) and depth and (tree or not name):
        for inner, value in tree.items():
            yield from _flat(value, f"{name}.{inner}" if name else str(inner), depth - 1)
    elif name:
        yield name, json.dumps(tree) if isinstance(tree, list | dict) else tree


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return _clean(value if len(value) <= _TEXT else f"{value[:_TEXT]}…")
    if isinstance(value, bool):
        return int(value)
    return _number(value)


def _clean(text: str) -> str:
    """The text without null characters and lone surrogates, which SQLite does not take."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "�").encode("utf-8", "replace").decode("utf-8")


def _number(value: Any) -> int | float | None:
    """The number that a summary means; None for what is none, and for NaN."""
    if type(value) is float:
        return value if value == value else None
    if isinstance(value, int):
        if abs(value) < _LARGE:
            return value
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return _INFINITE.get(value) if isinstance(value, str) else None


def _date(seconds: float) -> str | None:
    """The local time, such as 2026-11-29 18:31:05, which sorts and compares as a text."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return None
