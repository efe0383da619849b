"""`flexrec export`: a recording's numbers and texts as a table, for pandas or a spreadsheet.

Which rows there are, and CSV; how they become Parquet is in parquet.py.
"""

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from io import TextIOWrapper
from itertools import groupby, repeat
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from flexrec.cli.output import counted, echo, printable
from flexrec.cli.progress import reading
from flexrec.recorder.errors import RecordingError
from flexrec.recorder.reader import Recording, Row, Series, UnknownKeyError
from flexrec.recorder.replacing import replacing

__all__ = ["export_recording"]

_PLAIN = {"number", "text"}
_LONE = "backslashreplace"  # what becomes of surrogates, which UTF-8 does not have
_ROWS, _CHARACTERS = 1 << 16, 1 << 22  # of a piece, about, at most


def export_recording(path: Path, out: Path | None, *, keys: Sequence[str], overwrite: bool) -> None:
    """Write a row for each value, to a file or as CSV to stdout; say what is left out.

    A file whose name ends in .parquet is of that format, any other one CSV.

    Raises:
        RecordingError: the file is there already, or cannot be written.
        UnknownKeyError: a name or pattern fits no key.
    """
    with Recording(path) as run:
        kinds = {key: run.kind(key) for key in _chosen(run, keys)}
        plain = [key for key, kind in kinds.items() if _is_plain(kind)]
        if out is None:
            sys.stdout.reconfigure(errors=_LONE)  # type: ignore[union-attr]
            _write_csv(_pieces(run, plain), sys.stdout)
        else:
            with reading([run]):
                rows = _write_file(run, plain, out, overwrite)
            echo(f"{out}: {counted(rows, 'row')} of {counted(len(plain), 'key')}")
    left = [f"{key} ({kind})" for key, kind in kinds.items() if not _is_plain(kind)]
    if left:
        echo(f"flexrec: left out, for Python alone: {', '.join(left)}", err=True)


def _chosen(run: Recording, patterns: Sequence[str]) -> list[str]:
    """The keys that the patterns mean, in the recording's order; all where there are none."""
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = {key for key in run if key == pattern or fnmatchcase(key, pattern)}
        if not fitting:
            raise UnknownKeyError(
                f"{run.path} has no key that fits {pattern!r}; there are {', '.join(run):.600}"
            )
        chosen |= fitting
    return [key for key in run if not patterns or key in chosen]


def _is_plain(kind: str) -> bool:
    return set(kind.split(" or ")) <= _PLAIN


def _pieces(run: Recording, keys: Sequence[str]) -> Iterator[Series]:
    """The keys' values in the order of the rows, a bounded number of them at a time."""
    for are_numbers, group in groupby(keys, run.is_number):
        pieces = _numbers if are_numbers else _texts
        yield from pieces(run, group)


def _numbers(run: Recording, keys: Iterable[str]) -> Iterator[Series]:
    """Pieces of columns: nothing is done for each value."""
    for series in run.parts(keys, most=1 << 20):
        for first in range(0, len(series), _ROWS):
            rows = slice(first, first + _ROWS)
            step, time, position = series.step[rows], series.time[rows], series.position[rows]
            yield Series(series.key, step, time, series.value[rows], position)


def _texts(run: Recording, keys: Iterable[str]) -> Iterator[Series]:
    """Texts, and numbers among them; long texts are fewer in a piece."""
    for key in keys:
        rows, size = list[Row](), 0
        for row in run.rows(key):
            rows.append(row)
            size += len(row.value) if isinstance(row.value, str) else 0
            if len(rows) == _ROWS or size >= _CHARACTERS:
                yield _series(key, rows)
                rows, size = [], 0
        if rows:
            yield _series(key, rows)


def _series(key: str, rows: Sequence[Row]) -> Series:
    position, step, time, value = zip(*rows, strict=True)
    return Series(key, np.array(step), np.array(time), list(value), np.array(position))


def _write_file(run: Recording, keys: Sequence[str], out: Path, overwrite: bool) -> int:
    """Write the format that the file's name says; return how many rows there are."""
    if out.exists() and out.samefile(run.path):
        raise RecordingError(f"{out} is the recording itself; --out takes another file")
    if out.suffix.lower() != ".parquet":
        with (
            _made(out, overwrite) as file,
            TextIOWrapper(file, encoding="utf-8", errors=_LONE, newline="") as text,
        ):
            return _write_csv(_pieces(run, keys), text)
    from flexrec.cli.parquet import write_parquet  # says so where there is no pyarrow

    with _made(out, overwrite) as file:
        return write_parquet(_pieces(run, keys), file, keys=keys)


@contextmanager
def _made(out: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """A file to write, which is there when it is whole: half a table is worse than none."""
    is_there = out.exists()
    if is_there and not overwrite:
        raise RecordingError(f"{out} exists already; --force overwrites it")
    try:
        if is_there and not out.is_file():  # a device, a pipe
            with out.open("wb") as file:
                yield file
        else:
            with replacing(out) as partial, partial.open("wb") as file:
                yield file
    except OSError as error:
        raise RecordingError(f"cannot write {out}: {error.strerror or error}") from None


def _write_csv(pieces: Iterable[Series], file: TextIO) -> int:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("key", "step", "time", "value"))
    count, clean = 0, printable if file.isatty() else str
    for piece in pieces:
        if isinstance(piece.value, list):
            values = [clean(value) if isinstance(value, str) else value for value in piece.value]
        else:
            values = piece.value.tolist()
        when = piece.step.tolist(), piece.time.tolist()
        writer.writerows(zip(repeat(clean(piece.key)), *when, values, strict=False))
        count += len(piece)
    return count
