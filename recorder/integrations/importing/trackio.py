"""Read trackio's local store: a SQLite database of each project, with the rows of its runs.

trackio's own reader has a whole run in memory, so its tables are read as they are, without it.
Tested with trackio 0.43.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flexrec.recorder.events import Add, Value
from flexrec.recorder.integrations.importing.logged import logged_values
from flexrec.recorder.integrations.importing.source import Item, Notes, Settings

_MAGIC = b"SQLite format 3\0"
_COLUMNS = {"timestamp", "run_name", "step", "metrics"}
_OWN = ("_Username", "_Created", "_Group")  # settings that trackio writes itself
_NUMBERS = {"NaN", "Infinity", "-Infinity"}  # which JSON lacks
_LONGEST = 1 << 26  # bytes of a cell


def runs_in(path: Path) -> dict[str, str]:
    """The names of a database's runs, by what identifies them; empty if it is not trackio's.

    If it is damaged, there is a run without a name: reading it says why.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return {}
    try:
        with closing(_opened(path)) as base:
            if (number := _identity(base)) is None:
                return {}
            found = base.execute(f"SELECT {number}, MAX(run_name) FROM metrics GROUP BY 1")  # noqa: S608
            return {str(run): str(name) for run, name in found}
    except sqlite3.Error:
        return {"": ""}


def read_run(run: str, files: tuple[Path, ...], notes: Notes) -> Iterator[Item]:
    """The rows and settings of a run, in the order of their steps."""
    for path in files:
        try:
            with closing(_opened(path)) as base:
                number = _identity(base)
                yield from _settings(base, number, run, notes)
                yield from _adds(base, number, run, notes)
        except sqlite3.Error as error:
            notes.damage.append(f"{path}: damaged ({error}); the rest is left out")


def _opened(path: Path) -> sqlite3.Connection:
    """A database, to read; beside one that has no log, no file is made."""
    is_whole = not path.with_name(f"{path.name}-wal").exists()
    how = "mode=ro&immutable=1" if is_whole else "mode=ro"
    base = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{how}", uri=True)
    base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    base.execute("PRAGMA trusted_schema = OFF")
    pages, size = (
        base.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
    )
    if is_whole and path.stat().st_size < pages * size:
        raise sqlite3.DatabaseError("its end is missing")
    return base


def _identity(base: sqlite3.Connection) -> str | None:
    """The column that tells runs apart; None if the database is not trackio's."""
    is_table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'metrics'"
    columns = {row[1] for row in base.execute("PRAGMA table_info(metrics)")}
    if not columns >= _COLUMNS or base.execute(is_table).fetchone() is None:
        return None
    return "run_id" if "run_id" in columns else "run_name"


def _settings(
    base: sqlite3.Connection, number: str | None, run: str, notes: Notes
) -> Iterator[Settings]:
    columns = {row[1] for row in base.execute("PRAGMA table_info(configs)")}
    if number not in columns:
        return
    for (text,) in base.execute(f"SELECT config FROM configs WHERE {number} = ?", (run,)):  # noqa: S608
        try:
            config = _loaded(text)
        except (RecursionError, TypeError, ValueError):
            notes.left_out["damaged config"] += 1
        else:
            yield Settings({name: value for name, value in config.items() if name not in _OWN})


def _adds(base: sqlite3.Connection, number: str | None, run: str, notes: Notes) -> Iterator[Add]:
    rows = base.execute(
        f"SELECT step, timestamp, metrics FROM metrics WHERE {number} = ? ORDER BY step, id",  # noqa: S608
        (run,),
    )
    for step, time, text in rows:
        try:
            values = dict[str, Value]()
            for key, value in _loaded(text).items():
                values.update(logged_values(key, _number(value), notes))
            if values:
                yield Add(values, int(step), datetime.fromisoformat(time).timestamp())
        except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError):
            notes.left_out["damaged row"] += 1  # whatever a file may hold


def _loaded(text: str | bytes) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("not an object")
    return found


def _number(value: Any) -> Any:
    """A value, or the number that it is the name of."""
    if isinstance(value, dict) and "_type" not in value:
        return {name: _number(each) for name, each in value.items()}
    return float(value) if isinstance(value, str) and value in _NUMBERS else value
