"""`flexrec export`: a recording's numbers and texts as a table, or as TensorBoard's event file.

And those of many recordings as a dataset. replay/export/ has a file for each format.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TypeAlias

from flexrec.cli.output import echo
from flexrec.cli.progress import counting, reading
from flexrec.cli.showing.runs import chosen_runs
from flexrec.recorder.errors import OutputError, QueryError, counted, listed
from flexrec.recorder.files.atomic_write import check_name
from flexrec.recorder.recording import Recording
from flexrec.replay.export.formulas import formulas_note
from flexrec.replay.export.keys import chosen_keys
from flexrec.replay.export.tables import Written, table_pieces, write_csv, write_table

_TABLES = (".csv", ".txt", ".parquet")  # endings of what a single recording is written as

Fits: TypeAlias = Callable[[Recording, str], bool]
Write: TypeAlias = Callable[[Recording, Sequence[str], Path, bool], Written]


def export_recording(
    path: str, out: str | None, *, to: str | None, keys: Sequence[str], overwrite: bool
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
    if out is not None:
        check_name(out)
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
                written = write(run, plain, Path(out), overwrite)
            echo(f"{out}: {counted(written.rows, 'row')} of {counted(len(plain), 'key')}")
    if written.formulas:
        echo(f"flexrec: {formulas_note(written.formulas)}", err=True)
    if left:
        echo(f"flexrec: not exported (only Python can read them): {listed(left)}", err=True)


def export_runs(
    places: Sequence[str], out: str, *, where: str | None, keys: Sequence[str], overwrite: bool
) -> bool:
    """Write a dataset of the recordings in some places; return whether all could be read.

    Raises:
        MissingDependency: pyarrow is not installed.
        OutputError: the folder exists and may not be replaced, it cannot be written, or its name
            is that of a file.
        QueryError: the expression is wrong, or no run was chosen.
        RecordingError: there is no recording that can be read.
        UnknownKeyError: a name or pattern matches no key of any.
    """
    if Path(out).suffix.lower() in _TABLES:
        raise OutputError(
            f"{out}: several recordings are written as a folder; give a name such as dataset/"
        )
    runs = chosen_runs(places, where=where)
    if not len(runs):
        raise QueryError(f"no run was chosen: {'; '.join(runs.notes()) or f'none fits {where!r}'}")
    with counting("exported") as tell:
        found = runs.export(out, keys=keys, overwrite=overwrite, tell=tell)
    echo(f"{out}: {counted(found.rows, 'row')} of {counted(found.runs, 'run')}")
    notes = [f"left out: {why}" for why in found.left_out[:3]]
    if len(found.left_out) > 3:
        notes.append(f"left out: {len(found.left_out) - 3:,} more recordings that cannot be read")
    if found.unfinished:
        what = listed(found.unfinished, 3)
        notes.append(f"not ended, or killed, and exported as far as they are whole: {what}")
    if found.other_keys:
        notes.append(f"not exported (only Python can read them): {listed(found.other_keys)}")
    for note in notes:
        echo(f"flexrec: {note}", err=True)
    return not found.left_out


def _format(to: str | None) -> tuple[Fits, Write]:
    """Whether a format has a place for a key, and what writes it."""
    if to != "tensorboard":
        return (lambda run, key: run.columns.is_plain(key)), partial(write_table, to=to)
    from flexrec.replay.export.tensorboard import is_exported, write_events

    return is_exported, write_events
