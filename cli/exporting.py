"""`flexrec export`: a recording's numbers and texts as CSV, for pandas, DuckDB or a spreadsheet."""

import csv
import sys
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TextIO

from flexrec.cli.output import counted, echo, printable
from flexrec.recorder.errors import RecordingError
from flexrec.recorder.reader import Recording, UnknownKeyError

__all__ = ["export_recording"]

_PLAIN = {"number", "text"}
_LONE = "backslashreplace"  # what becomes of surrogates, which UTF-8 does not have


def export_recording(path: Path, out: Path | None, *, keys: Sequence[str], overwrite: bool) -> None:
    """Write a row for each value, to a file or to stdout; say what is left out.

    Raises:
        RecordingError: the file is there already, or cannot be written.
        UnknownKeyError: a name or pattern fits no key.
    """
    with Recording(path) as run:
        wanted = _chosen(run, keys)
        plain = [key for key in wanted if set(run.kind(key).split(" or ")) <= _PLAIN]
        if out is None:
            sys.stdout.reconfigure(errors=_LONE)  # type: ignore[union-attr]
            _write(run, plain, sys.stdout)
        else:
            rows = _write_file(run, plain, out, overwrite)
            echo(f"{out}: {counted(rows, 'row')} of {counted(len(plain), 'key')}")
    left = [f"{key} ({run.kind(key)})" for key in wanted if key not in plain]
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


def _write_file(run: Recording, keys: Sequence[str], out: Path, overwrite: bool) -> int:
    try:
        with out.open(
            "w" if overwrite else "x", newline="", encoding="utf-8", errors=_LONE
        ) as file:
            try:
                return _write(run, keys, file)
            except BaseException:
                with suppress(OSError):
                    out.unlink()  # half a table is worse than none
                raise
    except FileExistsError:
        raise RecordingError(f"{out} exists already; --force overwrites it") from None
    except OSError as error:
        raise RecordingError(f"cannot write {out}: {error.strerror or error}") from None


def _write(run: Recording, keys: Sequence[str], file: TextIO) -> int:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("key", "step", "time", "value"))
    count, clean = 0, printable if file.isatty() else str
    for key in keys:
        for row in run.rows(key):
            value = clean(row.value) if isinstance(row.value, str) else row.value
            writer.writerow((clean(key), row.step, row.time, value))
            count += 1
    return count
