"""Printing, where what comes out of a recording cannot command the terminal; and writing files."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from flexrec.recorder.errors import RecordingError
from flexrec.recorder.replacing import ExistsError

__all__ = ["echo", "echo_as_is", "printable", "writing"]

_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\n\t"}


def echo(text: str, *, err: bool = False) -> None:
    """Print a text, its control characters made visible."""
    echo_as_is(printable(text), err=err)


def echo_as_is(text: str, *, err: bool = False) -> None:
    """Print a text whose control characters are meant; what cannot be encoded is escaped."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)


def printable(text: str) -> str:
    """The text with control characters, but for line breaks and tabs, as escapes.

    >>> printable("loss\\x1b[2J")
    'loss\\\\x1b[2J'
    """
    return text.translate(_CONTROLS).encode("utf-8", "replace").decode("utf-8")


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """A block that writes a file: where it cannot, RecordingError says why in one line."""
    try:
        yield
    except ExistsError as error:
        raise RecordingError(f"{error.path} exists already; --force overwrites it") from None
    except OSError as error:
        raise RecordingError(f"cannot write {path}: {error.strerror or error}") from None
