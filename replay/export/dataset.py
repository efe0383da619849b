"""Write the numbers and texts of many recordings as a folder of Parquet files.

    dataset/runs.parquet           a row for each run: its config, facts and statistics
    dataset/values/00000.parquet   run, key, step, time, value, text; sorted by run and key

The values are in few large files, which DuckDB, Polars and Dask read in parallel, by row groups.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, NamedTuple

import numpy as np

from flexrec.recorder.errors import RecordingError, UnknownKeyError, listed
from flexrec.recorder.files.atomic_write import Kind, writing
from flexrec.recorder.files.folder_write import FolderKind, replacing_folder
from flexrec.recorder.recording import Recording
from flexrec.replay.export.keys import fitting_keys
from flexrec.replay.export.parquet import (
    CODED,
    KEY,
    VALUES,
    coded,
    encodable,
    groups,
    pa,
    pq,
    schema_of,
    with_keys,
)
from flexrec.replay.export.run_table import RUNS, write_run_table
from flexrec.replay.export.tables import table_pieces

_GROUP = 1 << 17  # rows of a row group, about: what one thread of a reader takes at a time
_FILE = 1 << 28  # bytes of a file, about
_SPOOL = 1 << 25  # bytes of a run that are kept in memory before they are written
_SCHEMA = pa.schema([pa.field("run", KEY.type, nullable=False), KEY, *VALUES])
_STORED: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["run", "key", "text"],
    "column_encoding": {
        "step": "DELTA_BINARY_PACKED",
        "time": "BYTE_STREAM_SPLIT",
        "value": "BYTE_STREAM_SPLIT",
    },
}

Tell = Callable[[int, int], None]
"""Called with the number of runs that have been written, and the number of all."""


class Source(NamedTuple):
    """A run to export: its name in the dataset, and its recording."""

    name: str
    path: Path


@dataclass
class Exported:
    """The numbers of runs and rows in a dataset, and what was left out.

    Attributes:
        runs, rows: how many there are.
        unfinished: the runs that have not ended, or were killed: they are whole up to some step.
        left_out: for each run that cannot be read, why.
        other_keys: for each key of values that only Python reads, how many runs have it.
    """

    runs: int = 0
    rows: int = 0
    unfinished: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    other_keys: Counter[str] = field(default_factory=Counter)


def _holds_values(path: Path) -> bool:
    schema = schema_of(path)
    return schema is not None and schema.names == _SCHEMA.names


DATASET = FolderKind(
    "a dataset that flexrec wrote",
    {"runs.parquet": RUNS, "values/*.parquet": Kind("values of runs", _holds_values)},
)


def write_dataset(
    sources: Sequence[Source],
    table: Any,
    out: Path,
    *,
    keys: Sequence[str] = (),
    overwrite: bool = False,
    tell: Tell = lambda _, __: None,
) -> Exported:
    """Write a dataset, which appears under its name when it is complete.

    A recording that cannot be read is left out as a whole, and so it is read before its rows are
    written. One recording is open at a time, and about two row groups are in memory.

    Args:
        sources: the runs; no two have one name.
        table: their table, of `run_table`, in the same order.
        out: the folder.
        keys: names and patterns of the keys; by default all.
        overwrite: whether a dataset that is there is replaced.

    Raises:
        ExistsError, OutputError: as `check_folder`; or the folder cannot be written.
        RecordingError: no recording can be read.
        UnknownKeyError: no run has a key that fits one of `keys`.
    """
    order = sorted(range(len(sources)), key=lambda i: encodable(sources[i].name))
    found, kept, fitting = Exported(), list[int](), set[str]()

    def tables() -> Iterator[Any]:
        for done, i in enumerate(order, 1):
            with SpooledTemporaryFile(_SPOOL) as spool:
                read = _read(sources[i], keys, spool, found, fitting)
                if read is not None:
                    kept.append(i)
                    yield from _tables(sources[i].name, read, spool)
            tell(done, len(order))

    with writing(out), replacing_folder(out, DATASET, overwrite=overwrite) as folder:
        (folder / "values").mkdir()
        found.rows = _write(folder / "values", groups(tables(), _GROUP))
        found.runs = len(kept)
        if not kept:
            raise RecordingError(f"nothing is exported: {listed(found.left_out, 3) or 'no run'}")
        if missing := [pattern for pattern in keys if pattern not in fitting]:
            raise UnknownKeyError(f"no run has a key that fits {missing[0]!r}")
        with (folder / "runs.parquet").open("wb") as file:
            write_run_table(table.take(kept), file)
    return found


def _read(
    source: Source, patterns: Sequence[str], spool: IO[bytes], found: Exported, fitting: set[str]
) -> list[str] | None:
    """Read a run's rows into a spool; return their keys, or None if it cannot be read."""
    try:
        with Recording(source.path) as run:
            keys, others = _keys(run, patterns, fitting)
            with pa.ipc.new_stream(spool, CODED) as stream:
                for batch in coded(table_pieces(run, keys), keys):
                    stream.write_batch(batch)
            is_complete = run.complete
    except RecordingError as error:
        found.left_out.append(str(error))
        return None
    found.other_keys.update(others)
    if not is_complete:
        found.unfinished.append(source.name)
    return keys


def _keys(
    run: Recording, patterns: Sequence[str], fitting: set[str]
) -> tuple[list[str], list[str]]:
    """The keys that are exported, sorted, and the others, with their kinds."""
    chosen = set(() if patterns else run)
    for pattern in patterns:
        if names := fitting_keys(run, pattern):
            fitting.add(pattern)
            chosen.update(names)
    plain = sorted(key for key in chosen if run.columns.is_plain(key))
    return plain, [f"{key} ({run.kind(key)})" for key in sorted(chosen.difference(plain))]


def _tables(run: str, keys: Sequence[str], spool: IO[bytes]) -> Iterator[Any]:
    """The rows in a spool, with the name of the run."""
    spool.seek(0)
    names, name = pa.array(list(map(encodable, keys)), pa.string()), pa.array([encodable(run)])
    for group in groups(pa.ipc.open_stream(spool), _GROUP):
        table = with_keys(group, names)
        places = pa.array(np.zeros(len(table), np.int32))
        its = pa.DictionaryArray.from_arrays(places, name)
        yield table.add_column(0, _SCHEMA.field("run"), its)


def _write(folder: Path, groups: Iterator[list[Any]]) -> int:
    """Write tables, each list as a row group, into files; return the number of rows."""
    rows = 0
    for number in count():
        with (
            (folder / f"{number:05}.parquet").open("wb") as file,
            pq.ParquetWriter(file, _SCHEMA, **_STORED) as writer,
        ):
            for group in groups:
                table = pa.concat_tables(group).unify_dictionaries()
                writer.write_table(table, row_group_size=len(table))
                rows += len(table)
                if file.tell() > _FILE:
                    break
            else:
                return rows
    return rows
