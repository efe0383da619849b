"""Write a recording's rows as Parquet, which pandas, DuckDB and Polars read, with pyarrow.

tables.py chooses the rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flexrec.recorder.errors import MissingDependency
from flexrec.recorder.files.atomic_write import Kind
from flexrec.recorder.storage.series import Series

try:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter, read_schema
except ImportError as missing:
    raise MissingDependency.of(
        "Parquet", "pyarrow", hint="CSV needs nothing: a name that ends in .csv"
    ) from missing


_ROWS, _BYTES = 1 << 20, 1 << 26  # approximate limit of a row group
_SCHEMA = pa.schema(
    [
        pa.field("key", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        # Seconds since 1970, as in CSV and Series: exact for all recorded times, and elapsed
        # time is a difference; pandas' to_datetime(unit="s") and DuckDB's to_timestamp give dates.
        pa.field("time", pa.float64(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("text", pa.string()),
    ]
)
_CODED = _SCHEMA.set(0, pa.field("key", pa.int32(), nullable=False))  # index of the key


def _holds_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return False
        file.seek(0)
        try:
            return bool(read_schema(file).names == _SCHEMA.names)
        except (pa.ArrowException, OSError):
            return False


PARQUET = Kind("a table that flexrec wrote as Parquet", _holds_parquet)


def write_parquet(pieces: Iterable[Series], file: BinaryIO, *, keys: Sequence[str]) -> int:
    """Write key, step, time, value and text, of which one is null; return the number of rows.

    Args:
        pieces: the rows; one row group of them is in memory at a time.
        file: the file to write to.
        keys: all keys of the rows.
    """
    names = pa.array(keys, pa.string())
    codes, count = {key: i for i, key in enumerate(keys)}, 0
    batches = (_batch(piece, codes[piece.key]) for piece in pieces)
    with ParquetWriter(file, _SCHEMA, compression="zstd", use_dictionary=["key", "text"]) as writer:
        for group in _groups(batches):
            table = pa.Table.from_batches(group)
            key = pa.DictionaryArray.from_arrays(table["key"].combine_chunks(), names)
            table = table.set_column(0, _SCHEMA.field("key"), key)
            writer.write_table(table, row_group_size=len(table))
            count += len(table)
    return count


def _groups(batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Combine batches into row groups."""
    group, rows, size = list[Any](), 0, 0
    for batch in batches:
        group.append(batch)
        rows, size = rows + len(batch), size + batch.nbytes
        if rows >= _ROWS or size >= _BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _batch(piece: Series, code: int) -> Any:
    """Convert a piece's rows to a record batch."""
    if isinstance(piece.value, list):
        numbers = [None if isinstance(value, str) else value for value in piece.value]
        texts = [_encodable(value) if isinstance(value, str) else None for value in piece.value]
        value, text = pa.array(numbers, pa.float64()), pa.array(texts, pa.string())
    else:
        value, text = pa.array(piece.value), pa.nulls(len(piece), pa.string())
    key = pa.array(np.full(len(piece), code, np.int32))
    columns = [key, pa.array(piece.step), pa.array(piece.time), value, text]
    return pa.record_batch(columns, schema=_CODED)


def _encodable(text: str) -> str:
    """Escape surrogates in the text, which UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
