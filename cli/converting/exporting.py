"""`flexrec export`: a recording's numbers and texts as a table, or as a run of another tracker.

And those of many recordings as a dataset. replay/export/ has a file for each format.
"""

import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple

from flexrec.cli.output import echo, echo_json
from flexrec.cli.progress import counting, reading
from flexrec.cli.showing.runs import chosen_runs
from flexrec.recorder.errors import OutputError, QueryError, counted, listed
from flexrec.recorder.files.atomic_write import check_name
from flexrec.recorder.files.remote import check_path
from flexrec.recorder.recording import Recording
from flexrec.replay.export.keys import chosen_keys
from flexrec.replay.export.tables import Written, table_pieces, write_csv, write_table
from flexrec.replay.runs.workers.choose import Wanted

_TABLES = (".csv", ".txt", ".parquet")  # endings of what a single recording is written as


class _Format(NamedTuple):
    """A format: whether it has a place for a key, what writes it, and why others are left out."""

    fits: Callable[[Recording, str], bool]
    write: Callable[[Recording, Sequence[str], str, bool], Written]
    others: str = "only Python can read them"


def export_recording(
    path: str,
    out: str | None,
    *,
    to: str | None,
    keys: Sequence[str],
    overwrite: bool,
    as_json: bool = False,
) -> None:
    """Write a row for each value, to a file or as CSV to stdout; print what is not exported.

    Unless `to` is given, a name that ends in .parquet means Parquet; .csv, .txt and no ending mean
    CSV. `out` is a file; for other trackers a folder, and for MLflow perhaps an address.

    Raises:
        MissingDependency: the package that the format needs is not installed.
        OutputError: the file exists and may not be overwritten, it cannot be written, or its name
            has another ending.
        UnknownKeyError: a name or pattern matches no key.
    """
    with Recording(path) as run:
        chosen, format_ = chosen_keys(run, keys), _format(to)
        fitting = [key for key in chosen if format_.fits(run, key)]
        left = [f"{key} ({run.kind(key)})" for key in chosen if key not in fitting]
        if out is None:
            if isinstance(sys.stdout, TextIOWrapper):
                sys.stdout.reconfigure(newline="\n")  # as in a file, on Windows too
            written = write_csv(table_pieces(run, fitting), sys.stdout)
        else:
            with reading([run]):
                written = format_.write(run, fitting, out, overwrite)
    notes = list(written.notes)
    if left:
        notes.append(f"not exported ({format_.others}): {listed(left)}")
    _tell(out, 1, written.rows, counted(len(fitting), "key"), notes, as_json=as_json)


def export_runs(
    places: Sequence[str],
    out: str,
    *,
    where: str | None,
    keys: Sequence[str],
    overwrite: bool,
    as_json: bool = False,
    workers: Wanted = None,
) -> bool:
    """Write a dataset of the recordings in some places; return whether all could be read.

    Raises:
        MissingDependency: pyarrow is not installed.
        OutputError: the folder exists and may not be replaced, it cannot be written, or its name
            is that of a file.
        QueryError: the expression is wrong, or no run was chosen.
        RecordingError: there is no recording that can be read.
        UnknownKeyError: a name or pattern matches no key of any.
        WorkerError: the workers cannot be reached, do not fit, or died, or do not see a file.
    """
    if Path(out).suffix.lower() in _TABLES:
        raise OutputError(
            f"{out}: several recordings are written as a folder; give a name such as dataset/"
        )
    runs = chosen_runs(places, where=where, workers=workers)
    if not len(runs):
        raise QueryError(f"no run was chosen: {'; '.join(runs.notes()) or f'none fits {where!r}'}")
    with counting("exported") as tell:
        found = runs.export(out, keys=keys, overwrite=overwrite, tell=tell)
    notes = [f"left out: {why}" for why in found.left_out[:3]]
    if len(found.left_out) > 3:
        more = counted(len(found.left_out) - 3, "more recording")
        notes.append(f"left out: {more}, which cannot be read")
    if found.unfinished:
        what = listed(found.unfinished, 3)
        notes.append(f"not ended, or killed, and exported as far as they are whole: {what}")
    if found.other_keys:
        notes.append(f"not exported (only Python can read them): {listed(found.other_keys)}")
    _tell(out, found.runs, found.rows, counted(found.runs, "run"), notes, as_json=as_json)
    return not found.left_out


def _tell(
    out: str | None, recordings: int, rows: int, of: str, notes: Sequence[str], *, as_json: bool
) -> None:
    """Print what was written, unless that was printed itself, and what is to be said of it."""
    if as_json:
        echo_json({"path": out, "recordings": recordings, "rows": rows, "notes": list(notes)})
        return
    if out is not None:
        echo(f"{out}: {counted(rows, 'row')} of {of}")
    for note in notes:
        echo(f"flexrec: {note}", err=True)


def _folder(out: str) -> Path:
    """The path of an output folder; no URL."""
    check_path(out)
    return Path(out)


def _format(to: str | None) -> _Format:
    """The format that `to` names; its module is imported now, and says what it lacks."""
    if to == "tensorboard":
        from flexrec.replay.export.tensorboard import write_events
        from flexrec.replay.export.tracked import is_tracked

        return _Format(
            is_tracked, lambda run, keys, out, force: write_events(run, keys, _folder(out), force)
        )
    if to == "wandb":
        from flexrec.replay.export.tracked import is_tracked
        from flexrec.replay.export.wandb import write_wandb

        return _Format(is_tracked, lambda run, keys, out, _: write_wandb(run, keys, _folder(out)))
    if to == "trackio":
        from flexrec.replay.export.tracked import is_tracked
        from flexrec.replay.export.trackio import write_trackio

        return _Format(is_tracked, lambda run, keys, out, _: write_trackio(run, keys, _folder(out)))
    if to == "mlflow":
        from flexrec.replay.export.mlflow import write_mlflow

        return _Format(
            Recording.is_number,
            lambda run, keys, out, _: write_mlflow(run, keys, out),
            "MLflow takes numbers alone",
        )

    def write(run: Recording, keys: Sequence[str], out: str, force: bool) -> Written:
        check_name(out)
        return write_table(run, keys, Path(out), force, to)

    return _Format(lambda run, key: run.columns.is_plain(key), write)
