"""Read rows of values as Parquet, which `flexrec export` writes of one recording or of many.

The columns are key, step, time and value; and text and run, if there are any. Of a dataset, the
names and the config of its runs are in the file beside its values.
"""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from flexrec.recorder.errors import MissingDependency, RecordingError
from flexrec.recorder.events import Add
from flexrec.recorder.integrations.importing.source import Item, Notes, Settings, Source

try:
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq
except ImportError as missing:
    raise MissingDependency.of("Parquet", "pyarrow") from missing

_RUNS, _VALUES = "runs.parquet", "values"  # of a dataset: a file, and a folder of files
_NEEDED = {"key": pa.string(), "step": pa.int64(), "time": pa.float64(), "value": pa.float64()}
_BATCH = 1 << 16  # rows in memory at a time
_ONE_BY_ONE = {"batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
_FORMAT = ds.ParquetFileFormat(  # otherwise a whole file would be in memory
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(
        pre_buffer=False, use_buffered_stream=True
    )
)
_NOT_READ = (pa.ArrowException, KeyError, OSError, ValueError)


def parquet_sources(path: Path, alone: Path, inside: Path) -> list[Source]:
    """The runs in a Parquet file, or in the folder of a dataset; none if it has no such rows.

    Args:
        path: the file or the folder.
        alone: the name of a run that has none of its own.
        inside: what the names of others begin with.

    Raises:
        RecordingError: a file cannot be read.
    """
    files = tuple(sorted((path / _VALUES).glob("*.parquet"))) if path.is_dir() else (path,)
    try:
        rows = ds.dataset(list(files), format=_FORMAT)
        if not {*_NEEDED} <= {*rows.schema.names}:
            return []
        if path.is_dir():
            runs = _described(path / _RUNS)
        elif "run" in rows.schema.names:
            runs = dict.fromkeys(_runs(rows))
        else:
            return [Source(alone, files, partial(_read, rows, None, None))]
    except _NOT_READ as error:
        raise RecordingError(f"{path} cannot be read as Parquet: {error}") from error
    return [
        Source(inside / _inside(run), files, partial(_read, rows, run, config))
        for run, config in runs.items()
    ]


def _described(path: Path) -> dict[str, str | None]:
    """The config of each run, by its name."""
    has_config = "config" in pq.read_schema(path).names
    table = pq.read_table(path, columns=["name", *(["config"] if has_config else [])])
    names = table["name"].cast(pa.string()).to_pylist()
    configs = table["config"].to_pylist() if has_config else [None] * len(names)
    found = zip(names, configs, strict=True)
    return {name: config for name, config in found if name is not None}


def _runs(rows: Any) -> Iterator[str]:
    """The names of the runs in the rows, many times."""
    for batch in rows.to_batches(columns=["run"], batch_size=_BATCH, **_ONE_BY_ONE):
        yield from (name for name in batch["run"].unique().to_pylist() if name is not None)


def _inside(run: str) -> PurePosixPath:
    """The name of a run as a path that stays within its folder."""
    parts = [part for part in run.replace("\0", "").split("/") if part not in ("", ".", "..")]
    return PurePosixPath(*parts or ["run"])


def _read(
    rows: Any, run: str | None, config: Any, _: tuple[Path, ...], notes: Notes
) -> Iterator[Item]:
    """The config of a run, and its values, in the order of the rows."""
    yield from _settings(config)
    columns = {name: ds.field(name).cast(kind) for name, kind in _NEEDED.items()}
    if "text" in rows.schema.names:
        columns["text"] = ds.field("text").cast(pa.string())
    wanted = None if run is None else ds.field("run") == run
    try:
        for batch in rows.to_batches(
            columns=columns, filter=wanted, batch_size=_BATCH, **_ONE_BY_ONE
        ):
            yield from _adds(batch, notes)
    except _NOT_READ as error:
        notes.damage.append(f"{run or 'the file'}: {error}; the rest is left out")


def _adds(batch: Any, notes: Notes) -> Iterator[Add]:
    names = batch.schema.names
    texts = batch["text"].cast(pa.binary()).to_pylist() if "text" in names else [None] * len(batch)
    rows = zip(*(batch[name].to_pylist() for name in _NEEDED), texts, strict=True)
    for key, step, time, number, text in rows:
        if key is None or step is None or time is None or (number is None and text is None):
            notes.left_out["row without a key, step, time or value"] += 1
        else:
            yield Add({key: notes.text(text) if number is None else number}, step, time)


def _settings(config: Any) -> Iterator[Settings]:
    try:
        found = json.loads(config) if isinstance(config, str) else None
    except (ValueError, RecursionError):
        return
    if isinstance(found, Mapping):
        yield Settings(found)
