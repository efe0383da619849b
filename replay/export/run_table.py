"""Write the table of runs as Parquet: a row for each run. It knows cells, and no recordings."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from flexrec.recorder.files.atomic_write import Kind
from flexrec.replay.export.parquet import encodable, pa, pq, schema_of

Cells: TypeAlias = Callable[[Sequence[str]], Sequence[tuple[Any, ...]]]
"""Gives the cells of some columns: a tuple for each run."""

_PIECE = 32  # columns that are Python objects at a time
_MARK = {b"flexrec": b"runs"}


def _holds_runs(path: Path) -> bool:
    schema = schema_of(path)
    return schema is not None and (schema.metadata or {}).items() >= _MARK.items()


RUNS = Kind("a table of runs that flexrec wrote as Parquet", _holds_runs)


def run_table(
    columns: Sequence[str], cells: Cells, own: Mapping[str, Sequence[Any]] | None = None
) -> Any:
    """The columns as an Arrow table: of texts if one cell is a text, else of floats or integers.

    Args:
        columns: their names.
        cells: gives the cells of columns.
        own: columns with these cells instead.
    """
    arrays = dict[str, Any]()
    for first in range(0, len(columns), _PIECE):
        names = columns[first : first + _PIECE]
        rows = cells(names)
        arrays |= {name: _array([row[i] for row in rows]) for i, name in enumerate(names)}
    arrays |= {name: _array(each) for name, each in (own or {}).items()}
    return pa.table(list(arrays.values()), list(map(encodable, arrays)), metadata=_MARK)


def write_run_table(table: Any, file: BinaryIO) -> None:
    """Write a table of `run_table`."""
    pq.write_table(table, file, compression="zstd")


def _array(cells: Sequence[Any]) -> Any:
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds <= {int, float} and kinds:
        return pa.array(cells, pa.float64() if float in kinds else pa.int64())
    texts = [None if cell is None else encodable(str(cell)) for cell in cells]
    return pa.array(texts, pa.string())
