"""Files that are made beside the path that they are for, and put there whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["beside", "clear_litter", "keep", "put_in_place", "replacing"]

_PURPOSES = ("making", "closing")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write, beside the one whose place it takes where nothing was raised.

        with replacing("run.json") as partial:
            partial.write_text("{}")

    What a link points to is replaced, not the link.

    Raises:
        OSError: it cannot be put in place; what was there is untouched.
    """
    path = Path(path).resolve()
    partial = beside(path, f"{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


# ---------------------------------------------------------------------- recordings


def beside(path: Path, purpose: str) -> Path:
    """Where what is to take the path's place is made.

    >>> beside(Path("run.h5"), "closing").name
    '.run.h5.closing'
    """
    return path.with_name(f".{path.name}.{purpose}")


def clear_litter(path: Path) -> None:
    """Remove what a killed recorder was about to put at the path; the lock must be held."""
    for purpose in _PURPOSES:
        beside(path, purpose).unlink(missing_ok=True)


def keep(path: Path) -> Path:
    """Give the file a second name, `run.original.h5`, before another takes its place."""
    names = (f"{path.stem}.original{i or ''}{path.suffix}" for i in range(10_000))
    original = next(n for n in map(path.with_name, names) if not n.exists())
    try:
        os.link(path, original)
    except OSError:  # a file system without hard links
        shutil.copy2(path, original)
    return original


def put_in_place(made: Path, path: Path) -> None:
    """Rename over the path, for good: it holds the old file or the new one, whole."""
    os.replace(made, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
