"""Write a recording's numbers and texts as a table, for pandas or a spreadsheet.

Chooses the rows, and writes CSV; parquet.py writes Parquet.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import groupby, repeat
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import OutputError, printable
from flexrec.recorder.files.atomic_write import Kind, replacing, writing
from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.series import Row, Series
from flexrec.replay.export.formulas import formulas_note, is_formula

_HEADER = ("key", "step", "time", "value", "text")


LONE_SURROGATES = "backslashreplace"  # for surrogates, which UTF-8 cannot encode


_ROWS, _CHARACTERS = 1 << 16, 1 << 22  # approximate limit of a piece


class Written(NamedTuple):
    """The number of rows, and what is to be said about them."""

    rows: int
    notes: Sequence[str] = ()


def table_pieces(run: Recording, keys: Sequence[str]) -> Iterator[Series]:
    """The keys' values in the order of the rows, a limited number at a time."""
    for are_numbers, group in groupby(keys, run.is_number):
        pieces = _numbers if are_numbers else _texts
        yield from pieces(run, group)


def _numbers(run: Recording, keys: Iterable[str]) -> Iterator[Series]:
    """Pieces of columns, without work for each value."""
    for series in run.columns.parts(keys, most=1 << 20):
        for first in range(0, len(series), _ROWS):
            rows = slice(first, first + _ROWS)
            step, time, position = series.step[rows], series.time[rows], series.position[rows]
            yield Series(series.key, step, time, series.value[rows], position)


def _texts(run: Recording, keys: Iterable[str]) -> Iterator[Series]:
    """Pieces of texts, and of numbers among them; a piece has fewer texts if they are long."""
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


def write_table(
    run: Recording, keys: Sequence[str], out: Path, overwrite: bool, to: str | None = None
) -> Written:
    """Write the table as `to`, csv or parquet, or else as the file name's ending says."""
    ending = f".{to}" if to else out.suffix.lower()
    if ending not in ("", ".csv", ".txt", ".parquet"):
        raise OutputError(
            f"{out}: no table is called {ending}; there are .csv and .txt, for CSV, and .parquet"
        )
    if ending != ".parquet":
        with (
            _made(out, run, _CSV, overwrite) as file,
            TextIOWrapper(file, encoding="utf-8", errors=LONE_SURROGATES, newline="") as text,
        ):
            return write_csv(table_pieces(run, keys), text)
    from flexrec.replay.export.parquet import (  # raises MissingDependency without pyarrow
        PARQUET,
        write_parquet,
    )

    with _made(out, run, PARQUET, overwrite) as file:
        return Written(write_parquet(table_pieces(run, keys), file, keys=keys))


@contextmanager
def _made(out: Path, run: Recording, kind: Kind, overwrite: bool) -> Iterator[BinaryIO]:
    """A file to write, which appears under its name only when it is complete."""
    with (
        writing(out),
        replacing(out, kind, overwrite=overwrite, inputs=[run.path]) as partial,
        partial.open("wb") as file,
    ):
        yield file


def _holds_csv(path: Path) -> bool:
    with path.open("rb") as file:  # a spreadsheet may change line ends, or add a mark
        return file.readline(64).strip(b"\xef\xbb\xbf\r\n") == ",".join(_HEADER).encode()


_CSV = Kind("a table that flexrec wrote as CSV", _holds_csv)


def write_csv(pieces: Iterable[Series], file: TextIO) -> Written:
    """Write key, step, time, value and text, of which one is empty."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_HEADER)
    rows = formulas = 0
    clean = printable if file.isatty() else str
    for piece in pieces:
        key = clean(piece.key)
        if isinstance(piece.value, list) or "\r" in key:
            values = [clean(value) if isinstance(value, str) else value for value in piece.value]
            file.writelines(_lines(_quoted(key), piece, values))
            formulas += sum(is_formula(value) for value in values)
        else:
            when = piece.step.tolist(), piece.time.tolist()
            values = _written(piece.value)
            writer.writerows(zip(repeat(key), *when, values, repeat(""), strict=False))
        rows += len(piece)
        formulas += len(piece) * is_formula(key)
    return Written(rows, [formulas_note(formulas)] if formulas else [])


def _lines(key: str, piece: Series, values: Sequence[Any]) -> Iterator[str]:
    for step, time, value in zip(piece.step.tolist(), piece.time.tolist(), values, strict=True):
        if isinstance(value, str):
            cells = f",{_quoted(value)}"
        else:
            cells = f"{'NaN' if value != value else repr(float(value))},"
        yield f"{key},{step},{time!r},{cells}\n"


def _written(values: NDArray[np.float64]) -> list[Any]:
    """Numbers as they are written; NaN as `NaN`, the spelling that polars reads too."""
    numbers: list[Any] = values.tolist()
    if np.isnan(values).any():
        return ["NaN" if value != value else value for value in numbers]
    return numbers


def _quoted(text: str) -> str:
    """Quote a text so that readers see one cell, even with a lone \\r, and never an empty one."""
    return '"' + text.replace('"', '""') + '"'
