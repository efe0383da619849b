"""Find the runs of other tools at a path, and write a recording for each.

The formats are read in files of their own, which are imported when there is something to read.
"""

import math
import os
import re
import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from flexrec.recorder.errors import InputError, RecordingError
from flexrec.recorder.events import Add
from flexrec.recorder.files.atomic_write import (
    beside,
    check_target,
    clear_litter,
    replacing,
    writing,
)
from flexrec.recorder.files.lock import locked
from flexrec.recorder.files.names import file_name
from flexrec.recorder.integrations.importing import mlflow, mlflow_database, trackio
from flexrec.recorder.integrations.importing.source import Item, Notes, Settings, Source
from flexrec.recorder.integrations.importing.sqlite import is_database, opened, read_database
from flexrec.recorder.integrations.importing.tables import check_table, is_metrics
from flexrec.recorder.recorder import Recorder
from flexrec.recorder.storage.open_store import RECORDING

_READERS = {  # by the ending of a file's name
    ".csv": ("tables", "read_csv"),
    ".jsonl": ("tables", "read_json_lines"),
    ".ndjson": ("tables", "read_json_lines"),
    ".tfevents": ("tensorboard", "read_events"),
    ".wandb": ("wandb", "read_wandb"),
}
_PARQUET = ".parquet"
_ACCEPTED = (
    "accepted are TensorBoard's event files (…tfevents…), wandb's offline files (….wandb), "
    "databases of trackio's and MLflow's (….db), CSV (….csv), JSON lines (….jsonl) and Parquet "
    "(….parquet), or a folder of those, or of MLflow's"
)
_BUFFER = 64 << 20


class Imported(NamedTuple):
    """A run that was imported.

    Attributes:
        path: the recording.
        values, keys: how many it has.
        left_out: for each kind of value that was left out, how many there were.
        damage: what is damaged in the files that were read.
    """

    path: Path
    values: int
    keys: int
    left_out: Counter[str]
    damage: list[str]


class Job(NamedTuple):
    """A run to import, and the recording that it becomes."""

    source: Source
    target: Path


Each = Callable[[Callable[[Job], Imported], Sequence[Job]], Iterator[Imported]]
"""Calls a function for each job, in their order; other processes may do it."""


def import_runs(
    path: Path, out: Path, *, overwrite: bool = False, each: Each = map
) -> Iterator[Imported]:
    """Write a recording for each run at a path, and yield what it has.

    A folder with TensorBoard's event files is one run, and so is a run's folder of MLflow's. So is
    each CSV, JSON lines or wandb file; Parquet and a database may hold several. Other
    files in a folder are ignored, and so is CSV without a column of steps. Recordings have the
    names of their sources, and lie in the same folders below `out`.

    Args:
        path: a file, or a folder that is searched.
        out: the folder of the recordings; or, if it ends in .h5 and there is one run, its file.
        overwrite: whether recordings that exist are overwritten.
        each: calls the import of each run, maybe in other processes, with absolute paths; by
            default in this process.

    Raises:
        ExistsError: a recording exists already, and may not be overwritten.
        MissingDependency: the package that a format needs is not installed.
        OutputError: a recording cannot be written.
        RecordingError: there is nothing to import, or it cannot be read.
    """
    found = find_sources(path)
    if not found:
        raise RecordingError(f"{path}: there is nothing to import; {_ACCEPTED}")
    jobs = [Job(*pair) for pair in zip(found, _targets(found, out), strict=True)]
    for job in jobs:
        with writing(job.target):
            check_target(job.target, RECORDING, overwrite=overwrite, inputs=job.source.files)
    # A worker that dies may have written recordings, which another writes again.
    yield from each(partial(import_run, overwrite=overwrite or each is not map), jobs)


def find_sources(path: Path) -> list[Source]:
    """The runs at a path, in the order of their names; of a folder, in its regular files."""
    if os.path.isdir(path):
        return list(_in_folder(path))
    if not os.path.isfile(path):
        what = "is not a regular file" if os.path.exists(path) else "does not exist"
        raise RecordingError(f"{path} {what}; {_ACCEPTED}")
    check_table(path)
    kind = _kind(path.name)
    if kind == ".tfevents":
        return [_source(Path(path.name), (path,), kind)]
    found = list(_in_file(path, kind, Path(path.stem), Path()))
    if not found:
        raise RecordingError(f"{path} cannot be imported; {_ACCEPTED}")
    return found


def _in_folder(path: Path) -> Iterator[Source]:
    for folder, folders, names in os.walk(path):
        folders.sort()
        here, inside, events = Path(folder), Path(folder).relative_to(path), list[Path]()
        if mlflow.META in names and mlflow.is_run(here):
            folders.clear()
            if not mlflow.is_deleted(here):
                yield Source(_mlflow_name(here, inside), (here / mlflow.META,), mlflow.read_run)
            continue
        if _is_dataset(folders, names):
            folders.clear()
            runs = _parquet(here, inside, inside)
            yield from runs if here == path else _or_damage(runs, here / "runs.parquet", inside)
            continue
        for name in sorted(names):
            kind, file = _kind(name), here / name
            if not file.is_file():  # reading a pipe may never end
                continue
            if kind == ".tfevents":
                events.append(file)
            elif kind != ".csv" or is_metrics(file):
                stem = (inside / name).with_suffix("")
                yield from _or_damage(_in_file(file, kind, stem, stem), file, stem)
        if events:
            alone = inside if inside.name else Path(path.resolve().name)
            yield _source(alone, tuple(events), ".tfevents")


def _or_damage(found: Iterable[Source], path: Path, alone: Path) -> Iterator[Source]:
    """The runs in one of a folder's files; if it cannot be read, there is one that says why."""
    try:
        yield from found
    except RecordingError as error:
        yield Source(alone, (path,), partial(_damaged, f"{error}"))


def _damaged(why: str, files: tuple[Path, ...], notes: Notes) -> Iterator[Item]:
    notes.damage.append(why)
    return iter(())


def _in_file(path: Path, kind: str, alone: Path, inside: Path) -> Iterator[Source]:
    """The runs in a file; none if it has no kind that is known.

    Args:
        path: the file.
        kind: the ending of its name.
        alone: the name of a run that has none of its own.
        inside: what the names of others begin with.
    """
    if kind == ".db":
        if is_database(path):
            yield from _in_database(path, alone, inside)
    elif kind == _PARQUET:
        yield from _parquet(path, alone, inside)
    elif kind in _READERS:
        yield _source(alone, (path,), kind)


def _in_database(path: Path, alone: Path, inside: Path) -> Iterator[Source]:
    """The runs in a database; if it is damaged, there is one, and reading it says why."""
    found = list[tuple[Path, partial[Iterator[Item]]]]()
    try:
        with opened(path) as base:
            if trackio.is_store(base):
                for number, name in trackio.runs_in(base):
                    found.append((Path(file_name(name)), partial(trackio.read_run, number)))
            elif mlflow_database.is_store(base):
                for number, experiment, name in mlflow_database.runs_in(base):
                    place = Path(file_name(experiment), file_name(name))
                    found.append((place, partial(mlflow_database.read_run, number)))
    except sqlite3.Error:
        yield Source(alone, (path,), partial(read_database, _nothing))
        return
    for place, read in found:
        yield Source(inside / place, (path,), partial(read_database, read))


def _nothing(base: sqlite3.Connection, notes: Notes) -> Iterator[Item]:
    """The items of a database that cannot be read."""
    return iter(())


def _mlflow_name(run: Path, inside: Path) -> Path:
    """The name of a run of MLflow's: it is in an experiment's folder, if that is searched."""
    name = Path(file_name(mlflow.run_name(run)))
    if not inside.name:
        return name
    return inside.parent.parent / file_name(mlflow.experiment_name(run)) / name


def _is_dataset(folders: list[str], names: list[str]) -> bool:
    """Whether a folder with these folders and files is a dataset that flexrec exported."""
    return "values" in folders and "runs.parquet" in names


def _parquet(path: Path, alone: Path, inside: Path) -> Iterator[Source]:
    # Imports pyarrow.
    from flexrec.recorder.integrations.importing.parquet import parquet_sources

    yield from parquet_sources(path, alone, inside)


def _kind(name: str) -> str:
    return ".tfevents" if ".tfevents." in name else Path(name).suffix.lower()


def _source(name: Path, files: tuple[Path, ...], kind: str) -> Source:
    return Source(name, files, partial(_read, kind))


def _read(kind: str, files: tuple[Path, ...], notes: Notes) -> Iterator[Item]:
    module, name = _READERS[kind]
    reader = getattr(import_module(f"flexrec.recorder.integrations.importing.{module}"), name)
    items: Iterator[Item] = reader(files, notes)
    return items


def _targets(found: list[Source], out: Path) -> list[Path]:
    """A recording for each run, no two of them the same, on file systems without case too."""
    wanted = [_target(source, out, is_only=len(found) == 1) for source in found]
    taken, given, targets = {*map(_folded, wanted)}, set[str](), list[Path]()
    for target in wanted:
        if _folded(target) in given:
            numbered = (target.with_stem(f"{target.stem}_{n}") for n in count(2))
            target = next(each for each in numbered if _folded(each) not in taken)
            taken.add(_folded(target))
        given.add(_folded(target))
        targets.append(target)
    return targets


def _folded(path: Path) -> str:
    return str(path).casefold()


def _target(source: Source, out: Path, *, is_only: bool) -> Path:
    if is_only and out.suffix == ".h5":
        return out
    return out / source.name.with_name(f"{source.name.name}.h5")


def import_run(job: Job, *, overwrite: bool = False) -> Imported:
    """Write a run's recording; it appears under its name when it is complete."""
    source, target = job
    notes, keys, values = Notes(), set[str](), 0
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear(target)
        with (
            replacing(target, RECORDING, overwrite=overwrite, inputs=source.files) as partial,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", RuntimeWarning)  # how the run might have been recorded
            items, created = _with_begin(source.read(source.files, notes))
            with Recorder(
                partial,
                mode="w",
                facts=False,
                on_error="raise",
                buffer_bytes=_BUFFER,
                created=created,
            ) as rec:
                for item in items:
                    if isinstance(item, Settings):
                        rec.config.update(item.values)
                        continue
                    for add in _recorded(rec, item, notes):
                        keys.update(add.values)
                        values += len(add.values)
    return Imported(target, values, len(keys), notes.left_out, notes.damage)


def _with_begin(items: Iterator[Item]) -> tuple[Iterator[Item], float | None]:
    """The items, and the time of the first values, with which the run began; None: none has one."""
    read = list[Item]()
    for item in items:
        read.append(item)
        if isinstance(item, Add):
            return chain(read, items), item.time if 0 < item.time < math.inf else None
    return iter(read), None


def _clear(target: Path) -> None:
    """Remove what the recorders of killed imports left; a living one has its lock."""
    left = re.compile(rf"\.({re.escape(beside(target, '').name)}[0-9a-f]+\.partial)\..+")
    for name in {found[1] for found in map(left.fullmatch, os.listdir(target.parent)) if found}:
        with suppress(RecordingError, OSError), locked(target.with_name(name)):
            clear_litter(target.with_name(name))


def _recorded(rec: Recorder, add: Add, notes: Notes) -> Iterator[Add]:
    """Record values; where one of them cannot be recorded, the others one by one."""
    try:
        rec.record(add)
        yield add
    except InputError as error:
        if len(add.values) == 1:
            notes.left_out[error.message] += 1
            return
        for key, value in add.values.items():
            yield from _recorded(rec, Add({key: value}, add.step, add.time), notes)
