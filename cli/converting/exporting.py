"""`flexrec export`: a recording's numbers and texts as a table, or as TensorBoard's event file.

replay/export/ has a file for each format.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TypeAlias

from flexrec.cli.output import echo
from flexrec.cli.progress import reading
from flexrec.recorder.errors import counted, listed
from flexrec.recorder.recording import Recording
from flexrec.replay.export.formulas import formulas_note
from flexrec.replay.export.keys import chosen_keys
from flexrec.replay.export.tables import Written, table_pieces, write_csv, write_table

Fits: TypeAlias = Callable[[Recording, str], bool]
Write: TypeAlias = Callable[[Recording, Sequence[str], Path, bool], Written]


def export_recording(
    path: Path, out: Path | None, *, to: str | None, keys: Sequence[str], overwrite: bool
) -> None:
    """Write a row for each value, to a file or as CSV to stdout; print what is not exported.

    Unless `to` is given, a name that ends in .parquet means Parquet; .csv, .txt and no ending mean
    CSV.

    Raises:
        MissingDependency: the package that the format needs is not installed.
        OutputError: the file exists and may not be overwritten, it cannot be written, or its name
            has another ending.
        UnknownKeyError: a name or pattern matches no key.
    """
    with Recording(path) as run:
        chosen = chosen_keys(run, keys)
        fits, write = _format(to)
        plain = [key for key in chosen if fits(run, key)]
        left = [f"{key} ({run.kind(key)})" for key in chosen if key not in plain]
        if out is None:
            if isinstance(sys.stdout, TextIOWrapper):
                sys.stdout.reconfigure(newline="\n")  # as in a file, on Windows too
            written = write_csv(table_pieces(run, plain), sys.stdout)
        else:
            with reading([run]):
                written = write(run, plain, out, overwrite)
            echo(f"{out}: {counted(written.rows, 'row')} of {counted(len(plain), 'key')}")
    if written.formulas:
        echo(f"flexrec: {formulas_note(written.formulas)}", err=True)
    if left:
        echo(f"flexrec: not exported (only Python can read them): {listed(left)}", err=True)


def _format(to: str | None) -> tuple[Fits, Write]:
    """Whether a format has a place for a key, and what writes it."""
    if to != "tensorboard":
        return (lambda run, key: run.columns.is_plain(key)), partial(write_table, to=to)
    from flexrec.replay.export.tensorboard import is_exported, write_events

    return is_exported, write_events
