"""Read trackio's local store: a SQLite database of each project, with the rows of its runs.

trackio's own reader has a whole run in memory, so its tables are read as they are, without it.
Tested with trackio 0.43.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from flexrec.recorder.events import Add, Value
from flexrec.recorder.integrations.importing.logged import json_float, logged_values
from flexrec.recorder.integrations.importing.source import Item, Notes, Settings
from flexrec.recorder.integrations.importing.sqlite import columns

_COLUMNS = {"timestamp", "run_name", "step", "metrics"}
EXPORT, UNFINISHED, FINISHED = "_Export", "unfinished", "finished"
"""A setting of a run that flexrec exports, and what it says."""

_OWN = ("_Username", "_Created", "_Group", EXPORT)  # settings that are not the user's
_NUMBERS = {"NaN", "Infinity", "-Infinity"}  # which JSON lacks


def is_store(base: sqlite3.Connection) -> bool:
    """Whether a database has trackio's tables."""
    return columns(base, "metrics") >= _COLUMNS


def runs_in(base: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """What identifies each of the runs, and its name."""
    found = f"SELECT {_identity(base)}, MAX(run_name) FROM metrics GROUP BY 1"  # noqa: S608
    return ((str(run), str(name)) for run, name in base.execute(found))


def read_run(run: str, base: sqlite3.Connection, notes: Notes) -> Iterator[Item]:
    """The rows and settings of a run, in the order of their steps."""
    number = _identity(base)
    yield from _settings(base, number, run, notes)
    yield from _adds(base, number, run, notes)


def _identity(base: sqlite3.Connection) -> str:
    """The column that tells runs apart."""
    return "run_id" if "run_id" in columns(base, "metrics") else "run_name"


def _settings(base: sqlite3.Connection, number: str, run: str, notes: Notes) -> Iterator[Settings]:
    if number not in columns(base, "configs"):
        return
    for (text,) in base.execute(f"SELECT config FROM configs WHERE {number} = ?", (run,)):  # noqa: S608
        try:
            config = _loaded(text)
        except (RecursionError, TypeError, ValueError):
            notes.left_out["damaged config"] += 1
        else:
            if config.get(EXPORT) == UNFINISHED:
                notes.damage.append("the export of this run was not finished, or killed")
            yield Settings({k: _number(value) for k, value in config.items() if k not in _OWN})


def _adds(base: sqlite3.Connection, number: str, run: str, notes: Notes) -> Iterator[Add]:
    rows = base.execute(
        f"SELECT step, timestamp, metrics FROM metrics WHERE {number} = ? ORDER BY step, id",  # noqa: S608
        (run,),
    )
    for step, time, text in rows:
        try:
            values = dict[str, Value]()
            for key, value in _loaded(text, json_float).items():
                values.update(logged_values(key, _number(value), notes))
            if values:
                yield Add(values, int(step), datetime.fromisoformat(time).timestamp())
        except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError):
            notes.left_out["damaged row"] += 1  # whatever a file may hold


def _loaded(text: str | bytes, parse: Callable[[str], float] = float) -> dict[str, Any]:
    found = json.loads(text, parse_float=parse)
    if not isinstance(found, dict):
        raise TypeError("not an object")
    return found


def _number(value: Any) -> Any:
    """A value, or the number that it is the name of."""
    if isinstance(value, dict) and "_type" not in value:
        return {name: _number(each) for name, each in value.items()}
    if isinstance(value, list):
        return list(map(_number, value))
    return float(value) if isinstance(value, str) and value in _NUMBERS else value
