"""Rewrite a recording in the closed layout: the same events, compressed, one dataset per part.

It reads through a store, so it can rewrite the file of a killed recorder too.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from flexrec.recorder.files.atomic_write import begin, put_in_place
from flexrec.recorder.hdf5.deflate import deflated, stored
from flexrec.recorder.hdf5.errors import traced
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn
from flexrec.recorder.storage.closing.output import Output, Rows
from flexrec.recorder.storage.closing.plans import Plans
from flexrec.recorder.storage.closing.tables import batches
from flexrec.recorder.storage.open_store import RECORDING, open_store
from flexrec.recorder.storage.store import Chunk, Store
from flexrec.recorder.storage.summary.contents import Totals, may_have_room, summary_body
from flexrec.recorder.storage.summary.head import put, sealed
from flexrec.recorder.storage.summary.statistics import Statistics

T = TypeVar("T")

_HELD = 16 << 20  # most bytes of partly filled chunks of the columns written in one pass


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
            raise store.file.damaged(f"{store.cut} events at its end cannot be read")
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
    counts = _counts(store)
    wanted = may_have_room(counts)
    roots = zip(store.views(), fmt.TABLES, strict=False)
    plans = [Plans(view, root, wanted if root == fmt.SERIES else ()) for view, root in roots]
    body = _summary(store, plans[0], counts)
    # Without a chunk cache, closing the file writes no data; so a full disk raises an error
    # earlier, while HDF5 would crash when closing.
    with (
        traced(),
        h5py.File(path, "w", libver=fmt.LIBVER, locking=False, rdcc_nbytes=0) as file,
    ):
        file.attrs.update(fmt.root_attributes(fmt.CLOSED, store.created))
        file.attrs.update({fmt.TABLES[each.root]: len(each.tables) for each in plans})
        output = Output(file.id, deflated if compress else stored)
        place = output.reserve(fmt.SUMMARY, len(sealed(body, 0)))
        for name in (fmt.CONFIG, fmt.FACTS):
            output.put_bytes(name, store.text(name))
        output.put_bytes(fmt.SCHEMA, store.schema.encode())
        _write_events(store.recorded(), output)
        file.create_group(fmt.SERIES)
        for each in plans:
            _write_tables(each, output)
            _write_series(each, output)
        output.flush()
        file.flush()
    put(path, place, body)


def _counts(store: Store) -> dict[str, int]:
    """The number of values of each key."""
    counts = dict[str, int]()
    for column, rows in zip(store.schema.columns, store.row_counts(), strict=True):
        counts[column.key] = counts.get(column.key, 0) + rows
    return counts


def _summary(store: Store, plans: Plans, counts: Mapping[str, int]) -> bytes:
    """The summary of a store, whose columns have been measured."""
    statistics, seen = dict[str, Statistics](), set[str]()
    measured = plans.statistics()
    for column, definition in enumerate(store.schema.columns):
        if definition.key in seen:  # it has values of another form too
            statistics.pop(definition.key, None)
        elif column in measured:
            statistics[definition.key] = measured[column]
        seen.add(definition.key)
    ended = plans.ended
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


def _write_events(store: Store, output: Output) -> None:
    """Write the codes of all events, and the marks."""
    code = np.min_scalar_type(-max(4, len(store.schema.signatures)))
    codes = Rows(output, fmt.EVENTS, code, store.count)
    marks = Rows(output, fmt.MARKS, fmt.MARK, store.mark_count)
    for block in store.blocks():
        codes.append(store.codes(*block))
        marks.append(store.marks(*block)[1])
    codes.finish()
    marks.finish()


def _write_tables(plans: Plans, output: Output) -> None:
    """Write the tables, in passes over the events."""
    every = (
        batch
        for number, table in enumerate(plans.tables)
        for batch in batches(output, table, fmt.table_path(number, plans.root), _HELD)
    )
    for some in _few_at_a_time(every, lambda batch: batch.held):
        groups = [batch.columns for batch in some]
        for block in plans.view.blocks():
            for batch, found in zip(some, plans.view.tables(groups, *block), strict=True):
                batch.take(found)
        for batch in some:
            batch.finish()


def _write_series(plans: Plans, output: Output) -> None:
    """Fill the columns that are not in tables, in passes over the events."""
    # Columns that were only ever added together share steps and times.
    shared = {
        plans.view.within(table.columns[0]): fmt.table_path(number, plans.root)
        for number, table in enumerate(plans.tables)
    }
    for some in _few_at_a_time(plans.columns, lambda column: plans.columns[column].held):
        writers = {column: _Writer(plans, output, column, shared) for column in some}
        for chunks in plans.view.scan(some):
            for chunk in chunks:
                if len(chunk):
                    writers[chunk.column].append(chunk)
        for writer in writers.values():
            writer.finish()


def _few_at_a_time(every: Iterable[T], held: Callable[[T], int]) -> Iterator[list[T]]:
    """Split what is written into groups that need little memory while their chunks fill."""
    some, total = list[T](), 0
    for each in every:
        if some and total + held(each) > _HELD:
            yield some
            some, total = [], 0
        some.append(each)
        total += held(each)
    if some:
        yield some


class _Writer:
    """Fills one column's group."""

    def __init__(
        self, plans: Plans, output: Output, column: int, shared: dict[frozenset[int], str]
    ) -> None:
        definition, within = plans.view.schema.columns[column], plans.view.within(column)
        plan, path = plans.columns[column], plans.path(column)
        self.parts: dict[int, Rows] = {}
        self.shapes: dict[int, Rows] = {}
        for i, form in enumerate(definition.forms):
            part = f"{path}/{fmt.part_name(definition, i)}"
            if i in plan.linked:
                output.link(part, plan.linked[i])
            elif form.kind == fmt.NUMBER:
                dtype = np.dtype("<f4" if plan.single[i] else "<f8")
                self.parts[i] = Rows(output, part, dtype, plan.rows)
            else:
                shape = f"{part}/{fmt.SHAPE}", np.dtype("<i8"), plan.rows, form.ndim
                self.shapes[i] = Rows(output, *shape)
                data = f"{part}/{fmt.DATA}", form.dtype, plan.elements[i]
                self.parts[i] = Rows(output, *data)
        self.times: list[Rows] = []
        for name, kind in ((fmt.STEP, "<i8"), (fmt.TIME, "<f8")):
            if within not in shared:
                self.times.append(Rows(output, f"{path}/{name}", np.dtype(kind), plan.rows))
            else:
                output.link(f"{path}/{name}", f"{shared[within]}/{name}")
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
