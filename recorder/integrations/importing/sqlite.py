"""Open the SQLite databases of other tools, to read them; trackio.py and mlflow_database.py do."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from flexrec.recorder.errors import RecordingError
from flexrec.recorder.integrations.importing.source import Item, Notes

_MAGIC, _HAS_LOG = b"SQLite format 3\0", 18  # where the header says whether a log is used
_LONGEST = 1 << 26  # bytes of a cell
_NEEDS_WRITING = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def is_database(path: Path) -> bool:
    """Whether a file is a database of SQLite's."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_database(
    read: Callable[[sqlite3.Connection, Notes], Iterator[Item]],
    files: tuple[Path, ...],
    notes: Notes,
) -> Iterator[Item]:
    """The items that a function reads in databases."""
    for path in files:
        try:
            with opened(path) as base:
                base.text_factory = notes.text
                yield from read(base, notes)
        except sqlite3.Error as error:
            notes.damage.append(f"{path}: cannot be read further ({error}); the rest is left out")


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A database, to read. Neither it nor its log is written, and no file is made beside them.

    What a killed process had not finished can only be undone by writing: then a copy is read, in
    the system's folder of temporary files.

    Raises:
        RecordingError: it cannot be copied.
        sqlite3.Error: it is damaged, or in use for long.
    """
    with (
        TemporaryDirectory(prefix="flexrec-") as folder,
        closing(_readable(path, Path(folder))) as base,
    ):
        yield base


def _readable(path: Path, folder: Path) -> sqlite3.Connection:
    """A connection to a database, or to a copy of it in a folder."""
    path = path.resolve()  # SQLite looks for the log there, too
    has_log = _beside(path, "wal").exists()
    try:
        if not has_log or _beside(path, "shm").exists():  # else SQLite would make the latter
            return _connected(path, _mode(path, has_log=has_log))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _NEEDS_WRITING:
            raise
    return _connected(_copy(path, folder), "mode=rw")


def _mode(path: Path, *, has_log: bool) -> str:
    """How to open a database so that others may write to it, and SQLite makes no log."""
    with path.open("rb") as file:
        file.seek(_HAS_LOG)
        uses_log = file.read(1) == b"\2"
    return "mode=ro&immutable=1" if uses_log and not has_log else "mode=ro"


def _copy(path: Path, folder: Path) -> Path:
    """A copy of a database, with its log and its journal."""
    try:
        copy = Path(shutil.copyfile(path, folder / "copy"))
        for name in ("wal", "journal"):
            if _beside(path, name).is_file():
                shutil.copyfile(_beside(path, name), _beside(copy, name))
    except OSError as error:
        raise RecordingError(f"{path}: it cannot be copied, to be read: {error}") from error
    return copy


def _beside(path: Path, name: str) -> Path:
    """The log of a database, its index, or its journal."""
    return path.with_name(f"{path.name}-{name}")


def _connected(path: Path, how: str) -> sqlite3.Connection:
    base = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{how}", uri=True)
    try:
        base.text_factory = lambda text: text.decode("utf-8", "replace")
        base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        base.execute("PRAGMA trusted_schema = OFF")
        pages, size = (
            base.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
        )
        if not _beside(path, "wal").exists() and path.stat().st_size < pages * size:
            raise sqlite3.DatabaseError("its end is missing")
    except BaseException:
        base.close()
        raise
    return base


def columns(base: sqlite3.Connection, table: str) -> set[str]:
    """The columns of a table; empty if there is none of this name, or it is a view."""
    is_table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    if base.execute(is_table, (table,)).fetchone() is None:
        return set()
    return {row[0] for row in base.execute("SELECT name FROM pragma_table_info(?)", (table,))}
