"""Write a recording's rows as Parquet, which pandas, DuckDB and Polars read, with pyarrow.

tables.py chooses the rows. dataset.py and run_table.py write Parquet of many recordings.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flexrec.recorder.errors import MissingDependency
from flexrec.recorder.files.atomic_write import Kind
from flexrec.recorder.storage.series import Series

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as missing:
    raise MissingDependency.of(
        "Parquet", "pyarrow", hint="CSV needs nothing: a name that ends in .csv"
    ) from missing

# dataset.py and run_table.py take pyarrow from here, and so raise the same error without it.
pa: Any = pyarrow
pq: Any = pyarrow.parquet

_ROWS, _BYTES = 1 << 20, 1 << 26  # approximate limit of a row group
KEY = pa.field("key", pa.dictionary(pa.int32(), pa.string()), nullable=False)
VALUES = [
    pa.field("step", pa.int64(), nullable=False),
    # Seconds since 1970, as in CSV and Series: exact for all recorded times, and elapsed
    # time is a difference; pandas' to_datetime(unit="s") and DuckDB's to_timestamp give dates.
    pa.field("time", pa.float64(), nullable=False),
    pa.field("value", pa.float64()),
    pa.field("text", pa.string()),
]
_SCHEMA = pa.schema([KEY, *VALUES])
CODED = _SCHEMA.set(0, pa.field("key", pa.int32(), nullable=False))
"""The columns of a recording's rows, with the index of the key instead of its name."""


def schema_of(path: Path) -> Any:
    """The schema of a Parquet file; None for another file."""
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return None
        file.seek(0)
        try:
            return pq.read_schema(file)
        except (pa.ArrowException, OSError):
            return None


def _holds_parquet(path: Path) -> bool:
    schema = schema_of(path)
    return schema is not None and schema.names == _SCHEMA.names


PARQUET = Kind("a table that flexrec wrote as Parquet", _holds_parquet)


def write_parquet(pieces: Iterable[Series], file: BinaryIO, *, keys: Sequence[str]) -> int:
    """Write key, step, time, value and text, of which one is null; return the number of rows.

    Args:
        pieces: the rows; one row group of them is in memory at a time.
        file: the file to write to.
        keys: all keys of the rows.
    """
    names, count = pa.array(keys, pa.string()), 0
    with pq.ParquetWriter(
        file, _SCHEMA, compression="zstd", use_dictionary=["key", "text"]
    ) as writer:
        for group in groups(coded(pieces, keys), _ROWS):
            table = with_keys(group, names)
            writer.write_table(table, row_group_size=len(table))
            count += len(table)
    return count


def with_keys(batches: Sequence[Any], keys: Any) -> Any:
    """The batches as one table, with the names of the keys."""
    table = pa.Table.from_batches(batches, CODED)
    key = pa.DictionaryArray.from_arrays(table["key"].combine_chunks(), keys)
    return table.set_column(0, KEY, key)


def groups(batches: Iterable[Any], rows: int) -> Iterator[list[Any]]:
    """Combine batches, or tables, into groups of about so many rows; of fewer if they are long."""
    group, count, size = list[Any](), 0, 0
    for batch in batches:
        group.append(batch)
        count, size = count + len(batch), size + batch.nbytes
        if count >= rows or size >= _BYTES:
            yield group
            group, count, size = [], 0, 0
    if group:
        yield group


def coded(pieces: Iterable[Series], keys: Sequence[str]) -> Iterator[Any]:
    """Convert pieces of the keys' rows to record batches, each with the index of its key."""
    codes = {key: i for i, key in enumerate(keys)}
    return (_batch(piece, codes[piece.key]) for piece in pieces)


def _batch(piece: Series, code: int) -> Any:
    if isinstance(piece.value, list):
        numbers = [None if isinstance(value, str) else value for value in piece.value]
        texts = [encodable(value) if isinstance(value, str) else None for value in piece.value]
        value, text = pa.array(numbers, pa.float64()), pa.array(texts, pa.string())
    else:
        value, text = pa.array(piece.value), pa.nulls(len(piece), pa.string())
    key = pa.array(np.full(len(piece), code, np.int32))
    columns = [key, pa.array(piece.step), pa.array(piece.time), value, text]
    return pa.record_batch(columns, schema=CODED)


def encodable(text: str) -> str:
    """Escape surrogates in the text, which UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
