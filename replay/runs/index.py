"""The index: the rows of the runs in a folder, in SQLite, in the user's cache. Never the truth.

Any number of processes read it at once, and it is never changed in place: who finds runs that are
new or changed copies it, changes the copy, and renames it over the old one. This needs no locks,
and a change that is lost when two do so at once is found again the next time. No recorder touches
it. If it is deleted or damaged, which its checksum tells, it is made anew.

Names of columns come from recordings, so none is ever part of an SQL text: the column with the
number 7 is called c7.
"""

import hashlib
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zlib import crc32

from flexrec.recorder.files.cache import cache_folder
from flexrec.recorder.files.descriptors import open_binary
from flexrec.recorder.files.rename import RENAMES_OPEN_FILES
from flexrec.replay.runs.row import STATISTICS, Row, as_here, live_state, row_of
from flexrec.replay.runs.scan import Found
from flexrec.replay.runs.workers.spread import Workers, spread

Tell = Callable[[int, int], None]
"""Called with the number of runs that have been read, and the number of those to read."""

_VERSION = 4  # of the tables below
_WIDE, _TABLES = 900, 50  # columns of a table, tables: also old SQLites take so many
_NAMED = _WIDE  # more columns, of those that were named
_CHECKSUM = 68  # where it is: the application_id, four bytes that SQLite leaves to its users
_BATCH = 500  # rows in memory at a time
_PATIENCE, _SHARE = 2.0, 20.0  # seconds, and times the time that reading takes: see _is_stale
_LITTER, _UNUSED = 3600.0, 90 * 86400.0  # seconds after which files in the cache are removed
_TABLES_SQL = """
    CREATE TABLE run(id INTEGER PRIMARY KEY, path UNIQUE, stamp, inode, live, state, read,
        cost, left_out);
    CREATE TABLE config(id INTEGER PRIMARY KEY, text);
    CREATE TABLE asked(key UNIQUE);
    CREATE TABLE col(id INTEGER PRIMARY KEY, name UNIQUE);
"""


class _Known(NamedTuple):
    """What the index says of a file."""

    id: int
    stamp: str
    inode: str
    live: int
    state: str | None
    read: float
    cost: float
    left_out: int


class _Work(NamedTuple):
    """What an index is to know, and who reads it; as in `indexed`."""

    found: Sequence[Found]
    tell: Tell
    ask: Sequence[str]
    workers: Workers | None


def indexed(
    found: Sequence[Found],
    homes: Iterable[str],
    tell: Tell,
    *,
    ask: Sequence[str] = (),
    workers: Workers | None = None,
) -> sqlite3.Connection:
    """An index that knows these files as they are now; it must only be read.

    Args:
        found: the files.
        homes: the folders that name the index; if there are none, it is not kept.
        tell: called while files are read.
        ask: keys, or columns, that are to be among the columns however many there are, from now on.
        workers: who reads the files; None: this process does.
    """
    homes, work = list(homes), _Work(found, tell, ask, workers)
    if not homes:
        return _in_memory(work)
    path = _place(homes)
    db = _opened(path)
    if db is not None:
        try:
            if not ask and not any(_changes(db, found)):
                return db
        except (sqlite3.DatabaseError, ValueError, TypeError):  # damaged
            db.close()
            db = None
    if db is not None:
        db.close()
    for copied in (db is not None, False):
        with suppress(sqlite3.DatabaseError):  # the old one is damaged, or full
            return _renewed(path, work, copied=copied)
    return _in_memory(work)  # the new one too: there is no room on the disk


def discard(homes: Iterable[str]) -> None:
    """Delete the index: something in it is damaged."""
    with suppress(OSError):
        _place(homes).unlink()


def _place(homes: Iterable[str]) -> Path:
    name = hashlib.sha256("\0".join(homes).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return cache_folder("runs") / f"{name}.sqlite"


def _opened(path: Path) -> sqlite3.Connection | None:
    """The index at the path, to read; None if there is none of this version that is whole."""
    db = None
    try:
        if not _is_whole(path):
            return None
        # Immutable: it is never changed under this name, so SQLite need not lock it.
        db = _connected(f"{path.as_uri()}?mode=ro&immutable=1")
        if db.execute("PRAGMA user_version").fetchone() == (_VERSION,):
            return db
    except (sqlite3.Error, OSError):
        pass
    if db is not None:
        db.close()
    return None


def _is_whole(path: Path) -> bool:
    """Whether every byte of an index is as it was written, which SQLite does not check."""
    # A pipe must not be waited for.
    descriptor = open_binary(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        found, held = _checksums(file) if stat.S_ISREG(os.fstat(descriptor).st_mode) else (0, b"")
    return held == found.to_bytes(4)


def _seal(path: Path) -> None:
    """Write the checksum of an index into it."""
    with path.open("r+b") as file:
        found, _ = _checksums(file)
        file.seek(_CHECKSUM)
        file.write(found.to_bytes(4))


def _checksums(file: BinaryIO) -> tuple[int, bytes]:
    """The CRC-32 of an index, and the one that it holds."""
    begin = file.read(_CHECKSUM + 4)
    found = crc32(begin[:_CHECKSUM])
    while piece := file.read(1 << 20):
        found = crc32(piece, found)
    return found, begin[_CHECKSUM:]


def _connected(name: str) -> sqlite3.Connection:
    db = sqlite3.connect(name, uri=True, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA trusted_schema=OFF")
    db.execute("PRAGMA temp_store=MEMORY")
    return db


def _renewed(path: Path, work: _Work, *, copied: bool) -> sqlite3.Connection:
    """Bring a copy of the index up to date, and put it in its place; or a new one."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _tidy(path.parent)
        handle, name = tempfile.mkstemp(".making", path.stem, path.parent)
        os.close(handle)
    except OSError:
        return _in_memory(work)
    making, db = Path(name), None
    try:
        if copied:
            shutil.copyfile(path, making)
        with closing(_connected(making.as_uri())) as changing:
            changing.execute("PRAGMA journal_mode=OFF")
            changing.execute("PRAGMA synchronous=OFF")
            _update(changing, work)
        _seal(making)
        if RENAMES_OPEN_FILES:
            db = _opened(making)  # before another process replaces it
        os.replace(making, path)
        if db is None:
            db = _opened(path)
    except OSError:  # a full disk, or the old one is gone
        making.unlink(missing_ok=True)
        return _in_memory(work)
    except BaseException:
        making.unlink(missing_ok=True)
        raise
    if db is None:
        raise sqlite3.DatabaseError("it cannot be read")
    return db


def _in_memory(work: _Work) -> sqlite3.Connection:
    """An index for this once: the cache cannot be written."""
    db = _connected(":memory:")
    _update(db, work)
    return db


def _tidy(folder: Path) -> None:
    """Remove what a kill left, and indexes of folders that have not changed for long."""
    for path in folder.iterdir():
        with suppress(OSError):
            limit = _LITTER if path.suffix == ".making" else _UNUSED
            if time.time() - path.stat().st_mtime > limit:
                path.unlink()


def _changes(
    db: sqlite3.Connection, found: Sequence[Found], ask: Sequence[str] = ()
) -> tuple[list[Found], list[int]]:
    """The files to read, and the rows to remove; all runs with many keys, if some are asked for."""
    sql = "SELECT path, id, stamp, inode, live, state, read, cost, left_out FROM run"
    known = {os.fsdecode(path): _Known(*rest) for path, *rest in db.execute(sql)}
    now = time.time()
    stale = [one for one in found if _is_stale(known.get(one.real), one, now, ask)]
    there = {one.real for one in found}
    removed = [known[one.real].id for one in stale if one.real in known]
    removed += [
        row.id for path, row in known.items() if path not in there and not os.path.lexists(path)
    ]
    return stale, removed


def _is_stale(known: _Known | None, one: Found, now: float, ask: Sequence[str]) -> bool:
    """Whether a file has to be read; one that grows is not read again at once."""
    if known is None or (ask and known.left_out):
        return True
    if known.state == "unreadable":  # the file need not change for it to become readable
        return True
    if known.live and known.state != live_state(one.real):
        return True
    if known.stamp == str(one.stamp):
        return False
    grows = known.state == "recording" and known.inode == str(one.inode)
    return not (grows and 0 <= now - known.read < max(_PATIENCE, _SHARE * known.cost))


def _update(db: sqlite3.Connection, work: _Work) -> None:
    if db.execute("PRAGMA user_version").fetchone() != (_VERSION,):
        db.executescript(_TABLES_SQL)
        db.execute(f"PRAGMA user_version={_VERSION}")
    stale, removed = _changes(db, work.found, work.ask)
    db.execute("BEGIN")
    db.executemany("INSERT OR IGNORE INTO asked VALUES(?)", ((each,) for each in work.ask))
    asked = [key for (key,) in db.execute("SELECT key FROM asked")]
    columns = column_numbers(db)
    if removed and is_full(columns):
        raise sqlite3.DatabaseError("it is full; some of its columns may have no values now")
    tables = ["run", "config", *sorted({_table(number) for number in columns.values()})]
    for table in tables:
        sql = f"DELETE FROM {table} WHERE id=?"  # noqa: S608 - a number alone
        db.executemany(sql, ((each,) for each in removed))
    (last,) = db.execute("SELECT coalesce(max(id), 0) FROM run").fetchone()
    rows, done = _read(stale, asked, work.workers), 0
    while batch := list(islice(rows, _BATCH)):
        _insert(db, columns, batch, last + 1 + done, set(asked))
        done += len(batch)
        work.tell(done, len(stale))
    db.execute("COMMIT")


def _read(
    stale: Sequence[Found], asked: Sequence[str], workers: Workers | None
) -> Iterator[tuple[Found, Row, float]]:
    read = partial(_timed, asked=asked)
    paths = [one.real for one in stale]
    with closing(spread(read, paths, workers, reads=str)) as rows:
        for one, (row, cost) in zip(stale, rows, strict=True):
            yield one, row if workers is None else as_here(row, one.real, asked), cost


def _timed(path: str, asked: Sequence[str]) -> tuple[Row, float]:
    begin = time.perf_counter()
    row = row_of(path, asked)
    return row, time.perf_counter() - begin


def _insert(
    db: sqlite3.Connection,
    columns: dict[str, int],
    batch: Sequence[tuple[Found, Row, float]],
    first: int,
    asked: set[str],
) -> None:
    """Insert rows, and the columns that they bring; beyond the limit, only those asked for."""
    new: dict[str, object] = {}
    for _, row, _ in batch:
        new |= row.cells
    names = [name for name in new if name not in columns]
    _add_columns(db, columns, names[: max(0, _WIDE * _TABLES - len(columns))])
    named = [name for name in names if name not in columns and named_by(name) in asked]
    _add_columns(db, columns, named[: _WIDE * _TABLES + _NAMED - len(columns)])
    of_tables: dict[str, list[str]] = {}
    for name, number in columns.items():
        of_tables.setdefault(_table(number), []).append(name)
    now, has_all = time.time(), not is_full(columns)
    runs = []
    for i, (one, row, cost) in enumerate(batch):
        lacks = () if has_all else (name for name in row.cells if name not in columns)
        without = len({named_by(name) for name in lacks})
        state = row.cells.get("state")
        told = first + i, os.fsencode(one.real), str(one.stamp), str(one.inode), row.is_live, state
        runs.append((*told, now, cost, row.left_out + without))
    db.executemany("INSERT INTO run VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", runs)
    shown = [(first + i, row) for i, (_, row, _) in enumerate(batch) if row.cells]
    db.executemany("INSERT INTO config VALUES(?, ?)", ((i, row.config) for i, row in shown))
    for table, names in of_tables.items():
        places = ", ".join("?" * (len(names) + 1))
        listed = ", ".join(f"c{columns[name]:d}" for name in names)
        rows = ((i, *map(row.cells.get, names)) for i, row in shown)
        db.executemany(
            f"INSERT INTO {table}(id, {listed}) VALUES({places})",
            (row for row in rows if row.count(None) < len(names)),
        )


def _add_columns(db: sqlite3.Connection, columns: dict[str, int], names: Sequence[str]) -> None:
    for name in names:
        number = len(columns)
        db.execute("INSERT INTO col VALUES(?, ?)", (number, name))
        columns[name] = number
    there = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    made: dict[str, list[str]] = {}
    for name in names:
        if name in columns:
            made.setdefault(_table(columns[name]), []).append(f"c{columns[name]:d}")
    for table, listed in made.items():
        if table not in there:
            db.execute(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, {', '.join(listed)})")
        else:
            for column in listed:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column}")


def column_numbers(db: sqlite3.Connection) -> dict[str, int]:
    """The number of each column, by its name."""
    return dict(db.execute("SELECT name, id FROM col ORDER BY id"))


def is_full(columns: Mapping[str, int]) -> bool:
    """Whether there is room for no columns but those that are named."""
    return len(columns) >= _WIDE * _TABLES


def named_by(column: str) -> str:
    """The key of a column such as `loss.min`, or another column itself: for this, one may ask."""
    key, _, statistic = column.rpartition(".")
    return key if key and statistic in STATISTICS else column


def _table(number: int) -> str:
    return f"val{number // _WIDE:d}"


def tables_of(numbers: Iterable[int]) -> list[str]:
    """The tables that have these columns."""
    return sorted({_table(number) for number in numbers})
