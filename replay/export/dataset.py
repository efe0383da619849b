"""Write the numbers and texts of many recordings as a folder of Parquet files.

    dataset/runs.parquet           a row for each run: its config, facts and statistics
    dataset/values/00000.parquet   run, key, step, time, value, text; sorted by run and key

The values are in few large files, which DuckDB, Polars and Dask read in parallel, by row groups. A
recording's rows are first written to a file of their own, `parts/NAME.arrow` in the same folder,
which other processes may do; then this process writes all rows, in the order of the names.
"""

import os
import secrets
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from flexrec.recorder.errors import RecordingError, UnknownKeyError, WorkerError, listed
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
_PART = pa.ipc.IpcWriteOptions(compression="lz4")
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


class Read(NamedTuple):
    """A recording whose rows were written to a file of their own.

    Attributes:
        part: the file.
        keys: its keys that are exported, sorted.
        others: those of values that only Python reads, with their kinds.
        fitting: the patterns that a key fits.
        is_complete: whether the run ended, and everything in it can be read.
    """

    part: str
    keys: list[str]
    others: list[str]
    fitting: set[str]
    is_complete: bool


_Result = Read | RecordingError
Each = Callable[[Callable[[str], _Result], Sequence[str]], Generator[_Result, None, None]]
"""Calls a function for each path, in their order; other processes may do it."""


def _holds_values(path: Path) -> bool:
    schema = schema_of(path)
    return schema is not None and schema.names == _SCHEMA.names


DATASET = FolderKind(
    "a dataset that flexrec wrote",
    {
        "runs.parquet": RUNS,
        "values/*.parquet": Kind("values of runs", _holds_values),
        "parts/*.arrow": Kind("rows, which a complete dataset has no more", lambda _: False),
    },
)


def write_dataset(
    sources: Sequence[Source],
    table: Any,
    out: Path,
    *,
    each: Each,
    keys: Sequence[str] = (),
    overwrite: bool = False,
    tell: Tell = lambda _, __: None,
) -> Exported:
    """Write a dataset, which appears under its name when it is complete.

    A recording that cannot be read is left out as a whole, and so it is read before its rows are
    written. About two row groups are in memory.

    Args:
        sources: the runs; no two have one name.
        table: their table, of `run_table`, in the same order.
        out: the folder.
        each: reads each recording, maybe in other processes.
        keys: names and patterns of the keys; by default all.
        overwrite: whether a dataset that is there is replaced.

    Raises:
        ExistsError, OutputError: as `check_folder`; or the folder cannot be written.
        RecordingError: no recording can be read.
        UnknownKeyError: no run has a key that fits one of `keys`.
        WorkerError: another process does not see the folder, or as `each` raises it.
    """
    order = sorted(range(len(sources)), key=lambda i: encodable(sources[i].name))
    paths = [os.path.abspath(sources[i].path) for i in order]
    found, kept, fitting = Exported(), list[int](), set[str]()

    def tables(results: Iterator[_Result]) -> Iterator[Any]:
        for done, (i, result) in enumerate(zip(order, results, strict=True), 1):
            if isinstance(result, RecordingError):
                why = str(result).replace(paths[done - 1], str(sources[i].path))
                found.left_out.append(why)
            else:
                kept.append(i)
                fitting.update(result.fitting)
                found.other_keys.update(result.others)
                found.unfinished += [] if result.is_complete else [sources[i].name]
                yield from _tables(sources[i].name, result)
            tell(done, len(order))

    with writing(out), replacing_folder(out, DATASET, overwrite=overwrite) as folder:
        for name in ("values", "parts"):
            (folder / name).mkdir()
        read = partial(_read, patterns=tuple(keys), folder=str(folder / "parts"))
        with closing(each(read, paths)) as results:
            found.rows = _write(folder / "values", groups(tables(results), _GROUP))
        shutil.rmtree(folder / "parts")
        found.runs = len(kept)
        if not kept:
            raise RecordingError(f"nothing is exported: {listed(found.left_out, 3) or 'no run'}")
        if missing := [pattern for pattern in keys if pattern not in fitting]:
            raise UnknownKeyError(f"no run has a key that fits {missing[0]!r}")
        with (folder / "runs.parquet").open("wb") as file:
            write_run_table(table.take(kept), file)
    return found


def _read(path: str, patterns: Sequence[str], folder: str) -> _Result:
    """Write a recording's rows to a file in the folder, or return why it cannot be read.

    Also a worker calls this.
    """
    part = os.path.join(folder, f"{secrets.token_hex(8)}.arrow")
    try:
        with Recording(path) as run:
            keys, others, fitting = _keys(run, patterns)
            with _new(part) as file, pa.ipc.new_stream(file, CODED, options=_PART) as stream:
                for batch in coded(table_pieces(run, keys), keys):
                    stream.write_batch(batch)
            return Read(part, keys, others, fitting, run.complete)
    except RecordingError as error:
        with suppress(FileNotFoundError):
            os.unlink(part)
        return error


def _new(part: str) -> BinaryIO:
    try:
        return open(part, "xb")
    except FileNotFoundError as error:
        raise WorkerError(
            f"a worker on {socket.gethostname()} does not see {os.path.dirname(part)}; workers "
            "need the folder of the dataset at the same path as here, on a file system that they "
            "share"
        ) from error


def _keys(run: Recording, patterns: Sequence[str]) -> tuple[list[str], list[str], set[str]]:
    """The keys that are exported, sorted; the others, with kinds; the patterns that a key fits."""
    fitting = {pattern: fitting_keys(run, pattern) for pattern in patterns}
    chosen = {key for keys in fitting.values() for key in keys} if patterns else set(run)
    plain = sorted(key for key in chosen if run.columns.is_plain(key))
    others = [f"{key} ({run.kind(key)})" for key in sorted(chosen.difference(plain))]
    return plain, others, {pattern for pattern, keys in fitting.items() if keys}


def _tables(run: str, read: Read) -> Iterator[Any]:
    """The rows of a run, with its name; the file that they are in is removed."""
    keys, name = pa.array(list(map(encodable, read.keys)), pa.string()), pa.array([encodable(run)])
    with open(read.part, "rb") as file:
        for group in groups(pa.ipc.open_stream(file), _GROUP):
            table = with_keys(group, keys)
            places = pa.array(np.zeros(len(table), np.int32))
            its = pa.DictionaryArray.from_arrays(places, name)
            yield table.add_column(0, _SCHEMA.field("run"), its)
    os.unlink(read.part)


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
