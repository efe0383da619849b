"""From the live layout to the closed one: the same events, compressed, a dataset for every part."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from flexrec.recorder import format as fmt
from flexrec.recorder.events import Array
from flexrec.recorder.store import Chunk, Ragged, Store, open_store

__all__ = ["close_in_place", "write_closed"]

_ROWS = 1 << 14  # rows of a chunk, at most
_DATA_BYTES = 1 << 20  # bytes of a chunk of array data, at most
_COLUMNS = 256  # columns written in one pass over the events: bounds the memory
_JOIN = 8 << 20  # bytes of array data that are written at once


def close_in_place(path: Path) -> None:
    """Rewrite a live file in the closed layout: beside it, synced, then renamed over it."""
    closing = path.with_name(f".{path.name}.closing")
    store, _ = open_store(path)
    try:
        write_closed(store, closing)
        os.replace(closing, path)
    finally:
        store.close()
        closing.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_closed(store: Store, path: Path) -> None:
    """Write a store's events to a new file in the closed layout, and fsync it."""
    with h5py.File(path, "w", libver=fmt.LIBVER, locking=False) as file:
        file.attrs.update(store.file.attrs)
        file.attrs[fmt.ATTR_STATE] = fmt.CLOSED
        for name in (fmt.CONFIG, fmt.FACTS):
            store.file.copy(name, file)
        file[fmt.SCHEMA] = np.frombuffer(store.schema.encode(), "u1")
        codes = store.codes.astype(np.min_scalar_type(-max(4, len(store.schema.signatures))))
        _dataset(file, fmt.EVENTS, codes.dtype, len(codes))[:] = codes
        _dataset(file, fmt.MARKS, fmt.MARK, len(store.marks))[:] = store.marks
        file.create_group(fmt.SERIES)
        columns = range(len(store.schema.columns))
        shared: dict[frozenset[int], h5py.Group] = {}
        for first in range(0, len(columns), _COLUMNS):
            _write_columns(store, file, columns[first : first + _COLUMNS], shared)
        file.flush()
        os.fsync(file.id.get_vfd_handle())


def _write_columns(
    store: Store, file: h5py.File, columns: Sequence[int], shared: dict[frozenset[int], h5py.Group]
) -> None:
    """Two passes over the events: measure the columns, then lay them out and fill them."""
    plans = {column: _Plan(len(store.schema.columns[column].forms)) for column in columns}
    for chunks in store.scan(columns):
        for chunk in chunks:
            plans[chunk.column].measure(chunk)
    writers = {column: _Writer(store, file, column, plans[column], shared) for column in columns}
    for chunks in store.scan(columns):
        for chunk in chunks:
            if len(chunk):
                writers[chunk.column].append(chunk)


class _Plan:
    """What has to be known of a column before it is laid out."""

    def __init__(self, parts: int) -> None:
        self.rows = 0
        self.single = [True] * parts  # whether every number is exactly a float32
        self.elements = [0] * parts  # of the array data

    def measure(self, chunk: Chunk) -> None:
        self.rows += len(chunk)
        for i, part in enumerate(chunk.parts):
            if isinstance(part, Ragged):
                self.elements[i] += int(part.shapes.prod(axis=1).sum())
            elif self.single[i]:
                with np.errstate(over="ignore"):
                    single = part.astype(np.float32)
                self.single[i] = np.array_equal(single, part, equal_nan=True)


class _Writer:
    """Fills one column's group."""

    def __init__(
        self,
        store: Store,
        file: h5py.File,
        column: int,
        plan: _Plan,
        shared: dict[frozenset[int], h5py.Group],
    ) -> None:
        definition = store.schema.columns[column]
        forms_before = fmt.first_forms(store.schema.columns)[column]
        self.group = file.require_group(fmt.series_path(definition, forms_before))
        self.row = 0
        self.ends = [0] * len(definition.forms)
        self.parts: list[h5py.Dataset | h5py.Group] = []
        for i, form in enumerate(definition.forms):
            name = fmt.part_name(definition, i)
            if form.kind == fmt.NUMBER:
                dtype = np.dtype("<f4" if plan.single[i] else "<f8")
                self.parts.append(_dataset(self.group, name, dtype, plan.rows))
            else:
                part = self.group.create_group(name)
                _dataset(part, fmt.SHAPE, np.dtype("<i8"), plan.rows, form.ndim)
                _dataset(part, fmt.DATA, form.dtype, plan.elements[i])
                self.parts.append(part)
        # Keys that were only ever added together share step and time.
        within = frozenset(s for s, c in enumerate(store.schema.signatures) if column in c)
        self.owns_time = within not in shared
        if self.owns_time:
            shared[within] = self.group
            _dataset(self.group, fmt.STEP, np.dtype("<i8"), plan.rows)
            _dataset(self.group, fmt.TIME, np.dtype("<f8"), plan.rows)
        else:
            for name in (fmt.STEP, fmt.TIME):
                self.group[name] = shared[within][name]

    def append(self, chunk: Chunk) -> None:
        rows = slice(self.row, self.row + len(chunk))
        self.row = rows.stop
        if self.owns_time:
            self.group[fmt.STEP][rows] = chunk.step
            self.group[fmt.TIME][rows] = chunk.time
        for i, part in enumerate(chunk.parts):
            if isinstance(part, Ragged):
                self.parts[i][fmt.SHAPE][rows] = part.shapes
                self._append_data(i, part)
            else:
                self.parts[i][rows] = part

    def _append_data(self, i: int, part: Ragged) -> None:
        data, waiting, size = self.parts[i][fmt.DATA], [], 0
        for array in part.flat():
            waiting.append(array)
            size += array.nbytes
            if size >= _JOIN:
                self._put(i, data, waiting)
                waiting, size = [], 0
        if waiting:
            self._put(i, data, waiting)

    def _put(self, i: int, data: h5py.Dataset, arrays: list[Array]) -> None:
        joined = np.concatenate(arrays)
        data[self.ends[i] : self.ends[i] + len(joined)] = joined
        self.ends[i] += len(joined)


def _dataset(
    group: h5py.Group, name: str, dtype: np.dtype[Any], rows: int, *width: int
) -> h5py.Dataset:
    """A compressed dataset of a known length; a small one is one chunk."""
    if rows == 0 or 0 in width:
        return group.create_dataset(name, (rows, *width), dtype)
    limit = _DATA_BYTES // dtype.itemsize if name == fmt.DATA else _ROWS
    return group.create_dataset(
        name,
        (rows, *width),
        dtype,
        chunks=(min(rows, limit), *width),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
    )
