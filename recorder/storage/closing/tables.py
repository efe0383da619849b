"""Write a table: the numbers of many keys that were only ever added together.

A table has at most ROWS rows, so that its keys' values lie together in few chunks. A longer key is
worth chunks of its own.
"""

import json
from collections.abc import Iterator

import numpy as np
from h5py import h5d

from flexrec.recorder.events import Array
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.closing.output import ROWS, Output, Rows, filled_up
from flexrec.recorder.storage.closing.plans import TablePlan
from flexrec.recorder.storage.store import Table


class TableBatch:
    """Some of a table's columns, as many as are written in one pass over the events.

    Attributes:
        columns: their numbers.
        held: the bytes that their values take in memory.
    """

    def __init__(
        self,
        output: Output,
        dataset: h5d.DatasetID,
        plan: TablePlan,
        first: int,
        columns: int,
        each: int,
        times: tuple[Rows, ...],
    ) -> None:
        self.columns = plan.columns[first : first + columns]
        self.held = 8 * plan.rows * len(self.columns)
        self._output, self._dataset, self._first, self._each = output, dataset, first, each
        self._times, self._parts = times, [np.empty((len(self.columns), 0))]

    def take(self, table: Table) -> None:
        """Take the values of a block."""
        self._parts.append(table.values)
        for rows, values in zip(self._times, (table.step, table.time), strict=False):
            rows.append(values)

    def finish(self) -> None:
        """Write the values."""
        values: Array = np.concatenate(self._parts, axis=1).astype(self._dataset.dtype)
        self._parts.clear()
        each = self._each
        for i in range(0, len(values) if values.size else 0, each):
            chunk = filled_up(values[i : i + each], each)
            self._output.put(self._dataset, (self._first + i, 0), chunk)
        for rows in self._times:
            rows.finish()


def batches(output: Output, plan: TablePlan, path: str, most: int) -> Iterator[TableBatch]:
    """Create a table, and yield its columns in batches of about `most` bytes of values.

    Each batch must be filled and finished. The first of them also writes the steps and times.
    """
    names = json.dumps(plan.keys, ensure_ascii=False, separators=(",", ":"))
    output.put_bytes(f"{path}/{fmt.KEYS}", names.encode())
    times = tuple(
        Rows(output, f"{path}/{name}", np.dtype(kind), plan.rows)
        for name, kind in ((fmt.STEP, "<i8"), (fmt.TIME, "<f8"))
    )
    count = len(plan.columns)
    # A chunk has about ROWS numbers, and all of each of its keys.
    each = min(max(ROWS // max(plan.rows, 1), 1), count)
    dtype = np.dtype("<f4" if plan.single else "<f8")
    shape, chunk = (count, plan.rows), (each, plan.rows)
    dataset = output.create(f"{path}/{fmt.BARE}", dtype, shape, chunk)
    some = max(most // (8 * max(plan.rows, 1)) // each, 1) * each
    for first in range(0, count, some):
        yield TableBatch(output, dataset, plan, first, some, each, () if first else times)
