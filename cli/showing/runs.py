"""`flexrec runs` and `flexrec tag`: a table of recordings, and their tags."""

import os
import sys
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path
from typing import Literal

from flexrec.cli.options import column_names
from flexrec.cli.output import echo, echo_json
from flexrec.cli.progress import counting
from flexrec.recorder.errors import counted, one_line
from flexrec.replay.export.formulas import formulas_note
from flexrec.replay.runs.collection import Runs
from flexrec.replay.runs.tags import tag, tags_of, untag
from flexrec.replay.runs.workers.choose import Wanted

Form = Literal["text", "json", "csv"]


def is_file(place: str | Path) -> bool:
    """Whether the place is meant as a recording, not as a folder or a pattern."""
    return not os.path.isdir(place) and (os.path.exists(place) or not has_magic(str(place)))


def chosen_runs(
    places: Sequence[str],
    *,
    where: str | None,
    sort: str | None = None,
    limit: int | None = None,
    workers: Wanted = None,
) -> Runs:
    """The runs that the options choose; shows progress while they are read."""
    with counting() as tell:
        found = Runs(*places, tell=tell, workers=workers)
    found = found if where is None else found.where(where)
    found = found if sort is None else found.sort(sort)
    return found if limit is None else found.limit(limit)


def show_runs(
    places: Sequence[str],
    *,
    where: str | None = None,
    sort: str | None = None,
    columns: str | None = None,
    limit: int | None = None,
    form: Form = "text",
    workers: Wanted = None,
) -> None:
    """Print the runs: as a table, as JSON or as CSV."""
    found = chosen_runs(places, where=where, sort=sort, limit=limit, workers=workers)
    names, formulas = _names(columns, found), 0
    if form == "json":
        echo_json({"runs": found.records(names or ())})
    elif form == "csv":
        formulas = found.table(names).write_csv(sys.stdout)
    else:
        echo(str(found.table(names)))
        echo(counted(len(found), "run"))
    for note in [*found.notes(), *([formulas_note(formulas)] if formulas else [])]:
        echo(f"flexrec: {note}", err=True)


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
