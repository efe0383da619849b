"""The rows of an index that expressions choose, in the order that they ask for."""

import json
import os
import re
import sqlite3
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Self

from flexrec.recorder.errors import QueryError, counted
from flexrec.replay.runs.expressions import (
    NUMBERS,
    TEXTS,
    Comparison,
    comparisons,
    condition,
    guarded,
    is_number,
    of_one_kind,
    ordering,
    unknown,
)
from flexrec.replay.runs.index import column_numbers, is_full, named_by, tables_of
from flexrec.replay.runs.row import Cell
from flexrec.replay.runs.scan import Found

OWN = ("name", "path")
"""The columns that depend on where a file is, not on its contents."""
ALWAYS = ("state", "error", "started", "seconds", "tags", "note")
"""The columns that may be named even if no run has a value in them."""

_PIECE = 300  # columns that are fetched at a time
_TEMPORARY = ("chosen", "picked")
_COLUMN, _WORD = re.compile(r"\bc(\d{1,9})\b"), re.compile(r"\w+")
_KINDS = {"text": TEXTS, "integer": NUMBERS, "real": NUMBERS}  # by SQLite's types


class Spread(NamedTuple):
    """How many of the rows have a value in a column, the least and the greatest."""

    rows: int
    least: Cell
    greatest: Cell


class Selection:
    """Some of the files that an index knows, as `picked` chooses them.

    Attributes:
        columns: the names of the columns, first those that every run has.
        found: the files of the rows, in their order.
        others: the number of files that are no recordings.
    """

    def __init__(self, db: sqlite3.Connection, found: Sequence[Found]) -> None:
        self._db = db
        weakref.finalize(self, db.close)
        self._numbers: Mapping[str, int] = column_numbers(db)
        self.columns = [*OWN, *self._numbers]
        self._sql = {name: f"c{n:d}" for name, n in self._numbers.items()}
        self._sql |= {name: name for name in OWN}
        self._sql |= {name: "NULL" for name in ALWAYS if name not in self._sql}
        ids = dict(db.execute("SELECT path, run.id FROM run JOIN config USING(id)"))
        keys = ((os.fsencode(one.real), one) for one in found)
        self._files = {ids[key]: one for key, one in keys if key in ids}
        self.others = len(found) - len(self._files)
        db.execute("CREATE TEMP TABLE chosen(id INTEGER PRIMARY KEY, path, name)")
        db.execute("CREATE TEMP TABLE picked(place INTEGER PRIMARY KEY, id)")
        db.executemany(
            "INSERT INTO chosen VALUES(?, ?, ?)",
            ((i, _clean(one.path), _clean(one.name)) for i, one in self._files.items()),
        )
        self.found: list[Found] = []
        self._asked: object = None

    def __len__(self) -> int:
        return len(self.found)

    def picked(self, where: Sequence[str], sort: str, limit: int | None) -> Self:
        """The same, with the rows for which every expression holds, in the order of the last one.

        Raises:
            QueryError: an expression is wrong, or names no column.
        """
        if self._asked == (where, sort, limit):
            return self
        self._asked = None
        each = [f"({self._of_one_kind(condition(text, self._sql))})" for text in where]
        order = self._of_one_kind(ordering(sort, self._sql)) if sort else "path"
        sql = f"SELECT id {self._source(' '.join([*each, order]))}"
        sql += f" WHERE {' AND '.join(each)}" if each else ""
        sql += f" ORDER BY {order}" + (f" LIMIT {limit:d}" if limit is not None else "")
        with self._guarded():
            ids = [i for (i,) in self._db.execute(sql)]
        self._db.execute("DELETE FROM picked")
        self._db.executemany("INSERT INTO picked VALUES(?, ?)", enumerate(ids))
        self.found = [self._files[i] for i in ids]
        self._asked = where, sort, limit
        return self

    def _of_one_kind(self, sql: str) -> str:
        """The SQL of an expression that compares numbers with numbers, and texts with texts.

        Raises:
            QueryError: a column of numbers is compared with a text, or the reverse.
        """
        kinds = self._kinds(sql)
        for compared in comparisons(sql, kinds):
            found = kinds[compared.column]
            if (found and compared.kind not in found) or (len(found) > 1 and compared.is_misquoted):
                name = next(n for n, column in self._sql.items() if column == compared.column)
                raise QueryError(_of_other_kind(name, compared, found))
        return of_one_kind(sql, {column for column, found in kinds.items() if len(found) > 1})

    def _kinds(self, sql: str) -> dict[str, set[str]]:
        """What the columns in an SQL text have: texts, numbers, both or nothing."""
        columns = sorted(set(_WORD.findall(sql)).intersection(self._sql.values()))
        if not columns:
            return {}
        each = (f"group_concat(DISTINCT typeof({c}))" for c in columns)
        sql = f"SELECT {', '.join(each)} {self._source(' '.join(columns))}"
        with self._guarded():
            (found,) = self._db.execute(sql)
        return {
            column: {_KINDS[kind] for kind in (types or "null").split(",") if kind in _KINDS}
            for column, types in zip(columns, found, strict=True)
        }

    def check(self, names: Sequence[str]) -> None:
        """Raise QueryError if there is no such column."""
        missing = [name for name in names if name not in self._sql]
        if missing:
            raise unknown(missing, self._sql)

    def may_have(self, columns: Collection[str]) -> set[str]:
        """The keys of these columns, if runs have so many that they may be in no column yet.

        Where no column more fits into the index, a column that is not of a key is itself one.
        """
        (runs,) = self._db.execute("SELECT count(*) FROM run WHERE left_out > 0").fetchone()
        if not runs:
            return set()
        keys = {named_by(column) for column in columns}
        if not is_full(self._numbers):
            keys -= set(columns)
        return keys.difference(key for (key,) in self._db.execute("SELECT key FROM asked"))

    def rows(self, names: Sequence[str]) -> list[tuple[Cell, ...]]:
        """The cells of some columns, a row for each run."""
        pieces = []
        for first in range(0, len(names), _PIECE):
            listed = [self._sql[name] for name in names[first : first + _PIECE]]
            sql = f"SELECT {', '.join(listed)} {self._source(' '.join(listed))}"
            with self._guarded():
                pieces.append(
                    self._db.execute(f"{sql} JOIN picked USING(id) ORDER BY place").fetchall()
                )
        return [sum(parts, ()) for parts in zip(*pieces, strict=True)]

    def spread(self, names: Sequence[str]) -> dict[str, Spread]:
        """What the rows have in some columns."""
        found = dict[str, Spread]()
        for first in range(0, len(names), _PIECE):
            some = names[first : first + _PIECE]
            listed = [self._sql[name] for name in some]
            each = ", ".join(f"count({c}), min({c}), max({c})" for c in listed)
            sql = f"SELECT {each} {self._source(' '.join(listed))} JOIN picked USING(id)"
            with self._guarded():
                (values,) = self._db.execute(sql)
            found |= {name: Spread(*values[3 * i : 3 * i + 3]) for i, name in enumerate(some)}
        return found

    def notes(self) -> list[str]:
        """What is to be known of the rows: files that are no recordings, keys that are left out."""
        notes = list[str]()
        if not self._files:
            notes.append("there is no recording in these places")
        if self.others:
            verb = "is no recording" if self.others == 1 else "are no recordings"
            notes.append(f"{counted(self.others, 'file')} {verb}")
        sql = "SELECT count(*), sum(left_out) FROM run JOIN picked USING(id) WHERE left_out > 0"
        ((runs, keys),) = self._db.execute(sql)
        if runs:
            notes.append(
                f"{counted(runs, 'run')} with many keys: {counted(keys, 'key')} are in no column "
                "before an expression names them; flexrec show lists those of a run"
            )
        return notes

    def configs(self) -> Iterator[Any]:
        """The config of each run.

        Raises:
            DatabaseError: one is not as it was written.
        """
        sql = "SELECT text FROM config JOIN picked USING(id) ORDER BY place"
        for (text,) in self._db.execute(sql):
            try:
                yield json.loads(text)
            except (TypeError, ValueError, RecursionError) as error:
                raise sqlite3.DatabaseError("a config of the index is damaged") from error

    def _guarded(self) -> AbstractContextManager[None]:
        return guarded(self._db, {*_TEMPORARY, *tables_of(self._numbers.values())})

    def _source(self, sql: str) -> str:
        """The tables that have the columns in an SQL text."""
        numbers = {int(number) for number in _COLUMN.findall(sql)}
        tables = tables_of(n for n in numbers if n < len(self._numbers))
        return f"FROM chosen {' '.join(f'LEFT JOIN {table} USING(id)' for table in tables)}"


def _of_other_kind(name: str, compared: Comparison, found: Collection[str]) -> str:
    """The message for a column of numbers that is compared with a text, or the reverse."""
    literal, has = compared.literal, " and ".join(sorted(found))
    before = f"{name} {compared.operator} " if compared.is_simple else ""
    if compared.kind == NUMBERS:
        return f"{name} has {has}, and {literal} is a number; write {before}'{literal}'"
    right = f"write {before}{literal[1:-1]}, without quotes"
    if not is_number(literal[1:-1]):
        right = "compare it with a number (1 is true, 0 is false)"
    return f"{name} has {has}, and {literal} is a text; {right}"


def _clean(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
