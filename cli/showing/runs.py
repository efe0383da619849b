"""`flexrec runs` and `flexrec tag`: a table of recordings, and their tags."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import has_magic
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, Literal

from flexrec.cli.options import column_names
from flexrec.cli.output import echo, echo_json, json_text
from flexrec.cli.progress import counting
from flexrec.recorder.errors import OutputError, counted, one_line
from flexrec.recorder.files.atomic_write import Kind, replacing, writing
from flexrec.replay.export.formulas import formulas_note
from flexrec.replay.runs.collection import Runs
from flexrec.replay.runs.table import holds_csv
from flexrec.replay.runs.tags import tag, tags_of, untag
from flexrec.replay.runs.workers.choose import Wanted

Form = Literal["text", "json", "csv"]


def is_file(place: str | Path) -> bool:
    """Whether the place is meant as a recording, not as a folder or a pattern."""
    return not os.path.isdir(place) and (os.path.exists(place) or not has_magic(str(place)))


def chosen_runs(
    places: Sequence[str],
    *,
    where: str | None = None,
    sort: str | None = None,
    limit: int | None = None,
    workers: Wanted = None,
) -> Runs:
    """The runs that the options choose; shows progress while they are read."""
    with counting() as tell:
        return Runs(*places, tell=tell, workers=workers).select(where, sort, limit)


def print_runs(found: Runs, columns: str | None = None, *, form: Form = "text") -> None:
    """Print the runs: as a table, as JSON or as CSV."""
    names, formulas = _names(columns, found), 0
    if form == "json":
        echo_json({"runs": found.records(names or ())})
    elif form == "csv":
        formulas = found.table(names).write_csv(sys.stdout)
    else:
        echo(str(found.table(names)))
        echo(counted(len(found), "run"))
    _tell(found, formulas)


def write_runs(found: Runs, columns: str | None, out: Path, *, overwrite: bool) -> None:
    """Write the runs to a file, as the ending of its name says; Parquet has every column.

    Raises:
        MissingDependency: pyarrow, which Parquet needs, is not installed.
        OutputError: the file exists and may not be overwritten, it cannot be written, or its name
            has another ending.
    """
    names, formulas = _names(columns, found), 0
    form = out.suffix.lower()
    if form == ".parquet":
        from flexrec.replay.export.run_table import RUNS, write_run_table

        with _writing(out, RUNS, overwrite) as file:
            write_run_table(found.to_arrow(names), file)
    elif form == ".csv":
        with _writing(out, _CSV, overwrite) as file, _text(file) as text:
            formulas = found.table(names).write_csv(text)
    elif form == ".json":
        with _writing(out, _JSON, overwrite) as file, _text(file) as text:
            text.write(f"{json_text({'runs': found.records(names or ())})}\n")
    else:
        raise OutputError(f"{out}: give a name that ends in .parquet, .csv or .json; or --html")
    echo(f"{out}: {counted(len(found), 'run')}")
    _tell(found, formulas)


def write_page(found: Runs, columns: str | None, out: Path, *, overwrite: bool) -> None:
    """Write a page with the table of the runs and plots of its columns.

    Raises:
        MissingDependency: plotly is not installed.
        OutputError: as for `write_runs`.
    """
    if out.suffix.lower() not in ("", ".html", ".htm"):
        raise OutputError(f"{out}: --html writes a page, NAME.html, not {out.suffix}")
    from flexrec.replay.sinks.html import write_table_page

    table = found.table(_names(columns, found))
    with writing(out):
        write_table_page(table.columns, table.rows, out, title=out.stem, overwrite=overwrite)
    echo(f"{out}: {counted(len(found), 'run')}")
    _tell(found)


def _tell(found: Runs, formulas: int = 0) -> None:
    for note in [*found.notes(), *([formulas_note(formulas)] if formulas else [])]:
        echo(f"flexrec: {note}", err=True)


@contextmanager
def _writing(out: Path, kind: Kind, overwrite: bool) -> Iterator[BinaryIO]:
    """A file to write, which appears under its name only when it is complete."""
    with (
        writing(out),
        replacing(out, kind, overwrite=overwrite) as partial,
        partial.open("wb") as file,
    ):
        yield file


def _text(file: BinaryIO) -> TextIOWrapper:
    return TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")


def _holds_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16).split()[:2] == [b"{", b'"runs":']


_CSV = Kind("a table of runs that flexrec wrote as CSV", holds_csv)
_JSON = Kind("runs that flexrec wrote as JSON", _holds_json)


def _names(columns: str | None, runs: Runs) -> list[str] | None:
    if columns is None:
        return None
    if columns.strip() == "all":
        return runs.columns
    return column_names(columns)


def tag_recording(path: Path, name: str | None, note: str, *, remove: bool, as_json: bool) -> None:
    """Tag a recording, or take a tag away; print the tags that it has now."""
    if name is not None:
        untag(path, name) if remove else tag(path, name, note)
    tags = tags_of(path)
    if as_json:
        echo_json({"path": str(path), "tags": tags})
        return
    for each, text in sorted(tags.items()):
        echo(one_line(f"{each}: {text}" if text else each))
    if not tags:
        echo(f"{path} has no tags")
