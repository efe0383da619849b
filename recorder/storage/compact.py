"""Rewrite a recording in the closed layout: the same events, compressed, one dataset per part.

It reads through a store, so it can rewrite the file of a killed recorder too.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t

from flexrec.recorder.errors import RecordingError
from flexrec.recorder.events import Array
from flexrec.recorder.files.atomic_write import begin, put_in_place
from flexrec.recorder.hdf5.chunks import share_out
from flexrec.recorder.hdf5.deflate import deflated, stored
from flexrec.recorder.hdf5.errors import traced
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn
from flexrec.recorder.storage.open_store import RECORDING, open_store
from flexrec.recorder.storage.store import Chunk, Store
from flexrec.recorder.storage.summary.contents import Totals, summary_body
from flexrec.recorder.storage.summary.head import put, sealed
from flexrec.recorder.storage.summary.statistics import Statistics

_ROWS = 1 << 14  # rows of a chunk, at most
_DATA_BYTES = 1 << 20  # bytes of a chunk of array data, at most
_OPEN_BYTES = 1 << 13  # approximate memory for a part of a column while it is written
_AT_ONCE = 4 << 20  # approximate bytes of chunks that are compressed at once, on several threads
_LARGE, _CHUNKS = 1 << 15, 2  # size in bytes and number of chunks from which threads pay off
_HELD = 16 << 20  # most bytes of partly filled chunks of the columns written in one pass
# A limit on the compression ratio of large array data, so that readers that limit their memory by
# the size of the file, such as flexrec's own, can read it.
_PLENTY, _DENSEST = 64 << 20, 32


def close_recording(source: Path, path: Path, *, compress: bool = True) -> None:
    """Write the recording `source` to `path` in the closed layout.

    The file is written beside `path`, synced and renamed. It gets the permissions of the source,
    and replaces no file but the source.

    Args:
        source, path: the recording to read, and the file to write.
        compress: whether to compress; if not, zlib's checksums are stored without compression.
    """
    store, _ = open_store(source)
    try:
        if store.cut:
            raise RecordingError(f"{store.cut} events at its end cannot be read")
        damage = store.damage()
        if damage:
            raise store.file.damaged(damage)
        closing = begin(path, "closing", like=source)
        try:
            write_closed(store, closing, compress=compress)
            put_in_place(closing, path, RECORDING, overwrite=source == path, like=source)
        finally:
            closing.unlink(missing_ok=True)
    finally:
        store.close()


def write_closed(store: Store, path: Path, *, compress: bool = True) -> None:
    """Write a store's events to a file in the closed layout; `put_in_place` syncs it."""
    plans = [_plans(view, root) for view, root in _roots(store)]
    body = _summary(store, plans[0])
    # Without a chunk cache, closing the file writes no data; so a full disk raises an error
    # earlier, while HDF5 would crash when closing.
    with (
        traced(),
        h5py.File(path, "w", libver=fmt.LIBVER, locking=False, rdcc_nbytes=0) as file,
    ):
        file.attrs.update(fmt.root_attributes(fmt.CLOSED, store.created))
        output = _Output(file.id, deflated if compress else stored)
        place = _reserved(file.id, fmt.SUMMARY, len(sealed(body, 0)))
        for name in (fmt.CONFIG, fmt.FACTS):
            _write_bytes(output, name, store.text(name))
        _write_bytes(output, fmt.SCHEMA, store.schema.encode())
        _write_events(store.recorded(), output)
        file.create_group(fmt.SERIES)
        for (view, root), planned in zip(_roots(store), plans, strict=True):
            _write_series(view, output, root, planned)
        output.flush()
        file.flush()
    put(path, place, body)


def _roots(store: Store) -> list[tuple[Store, str]]:
    """The views of a store, each with the group of its columns."""
    return list(zip(store.views(), (fmt.SERIES, fmt.SUPERSEDED_SERIES), strict=False))


def _summary(store: Store, plans: "Mapping[int, _Plan]") -> bytes:
    """The summary of a store, whose columns have been measured."""
    statistics, counts = dict[str, Statistics](), dict[str, int]()
    ended = 0.0
    for column, plan in plans.items():
        definition = store.schema.columns[column]
        if plan.statistics is not None and definition.key not in counts:
            statistics[definition.key] = plan.statistics
        else:  # it has values of another form too
            statistics.pop(definition.key, None)
        counts[definition.key] = counts.get(definition.key, 0) + plan.rows
        ended = max(ended, plan.ended)
    for first, last in list(store.blocks())[-1:]:
        ended = max(ended, float(store.marks(first, last)[1]["time"].max(initial=0)))
    dropped = 0.0
    for block in store.blocks() if not store.orderly else ():
        marks = store.marks(*block)[1]
        dropped += float(marks["x"][marks["code"] == fmt.DROPPED].sum())
    totals = Totals(
        store.created,
        ended,
        store.count,
        store.resumes,
        int(dropped) if math.isfinite(dropped) else 0,
    )
    return summary_body(totals, store.text(fmt.CONFIG), store.text(fmt.FACTS), counts, statistics)


def _reserved(file: h5f.FileID, name: str, size: int) -> int:
    """Create a dataset of bytes that HDF5 only allocates; return its place in the file."""
    plan = h5p.create(h5p.DATASET_CREATE)
    plan.set_obj_track_times(False)
    plan.set_layout(h5d.CONTIGUOUS)
    plan.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5d.FILL_TIME_NEVER)
    kind, space = h5t.py_create(np.dtype("u1"), logical=True), h5s.create_simple((size,))
    place: int = h5d.create(file, name.encode(), kind, space, plan, _links()).get_offset()
    return place


def _write_bytes(output: "_Output", name: str, data: bytes) -> None:
    rows = _Rows(output, name, np.dtype("u1"), len(data))
    rows.append(np.frombuffer(data, "u1"))
    rows.finish()


def _write_events(store: Store, output: "_Output") -> None:
    """Write the codes of all events, and the marks."""
    code = np.min_scalar_type(-max(4, len(store.schema.signatures)))
    codes = _Rows(output, fmt.EVENTS, code, store.count)
    marks = _Rows(output, fmt.MARKS, fmt.MARK, store.mark_count)
    for block in store.blocks():
        codes.append(store.codes(*block))
        marks.append(store.marks(*block)[1])
    codes.finish()
    marks.finish()


def _plans(store: Store, root: str) -> "dict[int, _Plan]":
    """Measure the columns, in one pass over the events."""
    everything = list(range(len(store.schema.columns)))
    columns = everything if root == fmt.SERIES else store.columns_held()
    paths = _paths(store, root)
    plans = {column: _Plan(store, column, paths) for column in columns}
    for chunks in store.scan(columns):
        for chunk in chunks:
            plans[chunk.column].measure(chunk)
    return plans


def _write_series(store: Store, output: "_Output", root: str, plans: "Mapping[int, _Plan]") -> None:
    """Fill the columns, in passes over the events."""
    paths = _paths(store, root)
    shared: dict[frozenset[int], str] = {}
    for some in _few_at_a_time(plans):
        writers = {
            column: _Writer(store, output, paths[column], column, plan, shared)
            for column, plan in some.items()
        }
        for chunks in store.scan(list(writers)):
            for chunk in chunks:
                if len(chunk):
                    writers[chunk.column].append(chunk)
        for writer in writers.values():
            writer.finish()


def _few_at_a_time(plans: "Mapping[int, _Plan]") -> "Iterator[dict[int, _Plan]]":
    """Split the columns into groups that need little memory while their chunks fill."""
    some, held = dict[int, _Plan](), 0
    for column, plan in plans.items():
        if some and held + plan.held > _HELD:
            yield some
            some, held = {}, 0
        some[column] = plan
        held += plan.held
    yield some


def _paths(store: Store, root: str) -> list[str]:
    """The path of each column's group."""
    columns = store.schema.columns
    forms_before = fmt.first_forms(columns)
    return [
        fmt.series_path(c, before, root) for c, before in zip(columns, forms_before, strict=True)
    ]


class _Plan:
    """The measurements of a column that its datasets' layout depends on.

    Attributes:
        linked: for parts shared with another column in every row, the path of that part.
        rows: the number of values.
        ended: the time of the last of them.
        statistics: those of a column of numbers, for the summary; None for others.
    """

    def __init__(self, store: Store, column: int, paths: Sequence[str]) -> None:
        columns = store.schema.columns
        self._forms = columns[column].forms
        self.linked: dict[int, str] = {}
        for part in range(len(self._forms)):
            there = store.linked(column, part)
            if there is not None:
                owner, its = there
                self.linked[part] = f"{paths[owner]}/{fmt.part_name(columns[owner], its)}"
        self.rows, self.ended = 0, 0.0
        self.statistics = Statistics() if columns[column].is_number else None
        self.single = [True] * len(self._forms)  # whether every number is exactly a float32
        self.elements = [0] * len(self._forms)  # number of array elements

    def measure(self, chunk: Chunk) -> None:
        self.rows += len(chunk)
        if len(chunk):
            self.ended = float(chunk.time[-1])
        for i, part in enumerate(chunk.parts):
            if i in self.linked:
                continue
            if isinstance(part, ArrayColumn):
                self.elements[i] += part.size
                continue
            if self.single[i]:
                self.single[i] = _is_single(part)
            if self.statistics is not None:
                self.statistics.take(chunk.step, part)

    @property
    def held(self) -> int:
        """The most bytes held in partly filled chunks, including steps and times."""
        rows, total = min(self.rows, _ROWS), 16
        data = _OPEN_BYTES * len(self._forms)
        for form, elements, single in zip(self._forms, self.elements, self.single, strict=True):
            if form.kind == fmt.NUMBER:
                total += 4 if single else 8
            else:
                total += 8 * form.ndim
                data += min(elements * form.dtype.itemsize, _DATA_BYTES)
        return rows * total + data


def _is_single(numbers: Array) -> bool:
    """Whether every number is exactly a float32."""
    with np.errstate(over="ignore"):
        same = numbers.astype(np.float32) == numbers
    return bool(same.all() or (same | np.isnan(numbers)).all())


class _Output:
    """The output file, and chunks waiting for it; several chunks are compressed at once."""

    def __init__(self, file: h5f.FileID, deflate: Callable[[Array, int], bytes]) -> None:
        self.file, self._deflated = file, deflate
        self._waiting: list[tuple[h5d.DatasetID, tuple[int, ...], Array, int]] = []
        self._size = 0

    def put(
        self, dataset: h5d.DatasetID, place: tuple[int, ...], chunk: Array, least: int = 0
    ) -> None:
        """Queue a chunk; large ones are written when there are several, or by `flush`.

        The chunk is stored in at least the given number of bytes.
        """
        if chunk.nbytes < _LARGE:
            dataset.write_direct_chunk(place, self._deflated(chunk, least))
            return
        self._waiting.append((dataset, place, chunk, least))
        self._size += chunk.nbytes
        if self._size > _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write all waiting chunks."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        found = dict[int, bytes]()

        def deflate(i: int) -> None:
            *_, chunk, least = waiting[i]
            found[i] = self._deflated(chunk, least)

        share_out([partial(deflate, i) for i in range(len(waiting))], _CHUNKS)
        for i, (dataset, place, _, _) in enumerate(waiting):
            dataset.write_direct_chunk(place, found.pop(i))


class _Rows:
    """Fills a dataset from its start in whole chunks, so that each is compressed once."""

    def __init__(
        self, output: _Output, path: str, dtype: np.dtype[Any], rows: int, *width: int
    ) -> None:
        is_data = path.endswith(f"/{fmt.DATA}")
        limit = _DATA_BYTES // dtype.itemsize if is_data else _ROWS
        self._chunk, self._width, self._dtype = min(rows, limit), width, dtype
        is_plenty = is_data and rows * dtype.itemsize >= _PLENTY
        self._least = self._chunk * dtype.itemsize // _DENSEST if is_plenty else 0
        plan = _layout(self._chunk, *width)
        kind, space = h5t.py_create(dtype, logical=True), h5s.create_simple((rows, *width))
        self._output = output
        self._dataset = h5d.create(output.file, path.encode(), kind, space, plan, _links())
        self._end = 0
        self._waiting: list[Array] = []
        self._count = 0

    def append(self, rows: Array) -> None:
        # A copy, so that a larger base array can be freed.
        self._waiting.append(rows.astype(self._dtype, "C"))
        self._count += len(rows)
        if self._count >= self._chunk > 0:
            self._write(self._count - self._count % self._chunk)

    def finish(self) -> None:
        self._write(self._count)

    def _write(self, count: int) -> None:
        if not count:
            return
        rows = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        for first in range(0, count if rows.size else 0, self._chunk):
            chunk = np.zeros((self._chunk, *self._width), self._dtype)
            some = rows[first : min(first + self._chunk, count)]
            chunk[: len(some)] = some
            place = (self._end + first, *(0 for _ in self._width))
            self._output.put(self._dataset, place, chunk, self._least)
        self._end += count
        self._waiting, self._count = [rows[count:].copy()], self._count - count


class _Writer:
    """Fills one column's group."""

    def __init__(
        self,
        store: Store,
        output: _Output,
        path: str,
        column: int,
        plan: _Plan,
        shared: dict[frozenset[int], str],
    ) -> None:
        definition = store.schema.columns[column]
        self.parts: dict[int, _Rows] = {}
        self.shapes: dict[int, _Rows] = {}
        for i, form in enumerate(definition.forms):
            part = f"{path}/{fmt.part_name(definition, i)}"
            if i in plan.linked:
                _link(output, part, plan.linked[i])
            elif form.kind == fmt.NUMBER:
                dtype = np.dtype("<f4" if plan.single[i] else "<f8")
                self.parts[i] = _Rows(output, part, dtype, plan.rows)
            else:
                shape = f"{part}/{fmt.SHAPE}", np.dtype("<i8"), plan.rows, form.ndim
                self.shapes[i] = _Rows(output, *shape)
                data = f"{part}/{fmt.DATA}", form.dtype, plan.elements[i]
                self.parts[i] = _Rows(output, *data)
        # Keys that were always added together share step and time.
        within = store.within(column)
        self.times: list[_Rows] = []
        for name, kind in ((fmt.STEP, "<i8"), (fmt.TIME, "<f8")):
            if within not in shared:
                self.times.append(_Rows(output, f"{path}/{name}", np.dtype(kind), plan.rows))
            else:
                _link(output, f"{path}/{name}", f"{shared[within]}/{name}")
        shared.setdefault(within, path)

    def append(self, chunk: Chunk) -> None:
        for rows, values in zip(self.times, (chunk.step, chunk.time), strict=False):
            rows.append(values)
        for i, rows in self.parts.items():
            part = chunk.parts[i]
            if isinstance(part, ArrayColumn):
                self.shapes[i].append(part.shapes)
                for array in part.flat():
                    rows.append(array)
            else:
                rows.append(part)

    def finish(self) -> None:
        for rows in (*self.times, *self.shapes.values(), *self.parts.values()):
            rows.finish()


def _link(output: _Output, path: str, there: str) -> None:
    """Create a hard link from `path` to the object at `there`."""
    output.file.links.create_hard(path.encode(), output.file, there.encode(), _links())


@cache
def _links() -> h5p.PropLCID:
    """Link creation properties: create missing groups on the path."""
    plan = h5p.create(h5p.LINK_CREATE)
    plan.set_char_encoding(h5t.CSET_UTF8)
    plan.set_create_intermediate_group(True)
    return plan


@lru_cache(64)
def _layout(*chunk: int) -> h5p.PropDCID:
    """Dataset creation properties: compressed chunks of this shape; contiguous without one."""
    plan = h5p.create(h5p.DATASET_CREATE)
    plan.set_obj_track_times(False)
    if 0 in chunk:
        return plan
    plan.set_chunk(chunk)
    plan.set_shuffle()
    plan.set_deflate(1)
    return plan
