"""How the columns of a store are laid out: which lie in tables, and with which dtypes.

Measuring them takes one pass over the events. This module writes nothing.
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn
from flexrec.recorder.storage.closing.output import DATA_BYTES, ROWS
from flexrec.recorder.storage.store import Chunk, Store, Table
from flexrec.recorder.storage.summary.statistics import Statistics, take_rows

_MANY = 64  # fewest keys of a table
_OPEN_BYTES = 1 << 13  # approximate memory for a part of a column while it is written


class Plans:
    """The layout of a view's columns, measured.

    Attributes:
        root: the group of the columns; fmt.TABLES has that of the tables.
        columns: the plan of each column that has a group of its own.
        tables: the tables of the other columns.
        ended: the time of the last add; 0 if there is none.
    """

    def __init__(self, view: Store, root: str, wanted: Collection[str]) -> None:
        """Measure the columns of a view.

        Args:
            wanted: the keys whose statistics are needed.
        """
        self.view, self.root = view, root
        self._forms_before = fmt.first_forms(view.schema.columns)
        is_all = root == fmt.SERIES
        numbers = range(len(view.schema.columns)) if is_all else view.columns_held()
        alone, together = _divided(view, numbers)
        self.columns = {column: Plan(view, column, wanted, self.path) for column in alone}
        self.tables = [TablePlan(view, columns, wanted) for columns in together]
        for chunks in view.scan(alone) if alone else ():
            for chunk in chunks:
                self.columns[chunk.column].measure(chunk)
        groups = [table.columns for table in self.tables]
        for block in view.blocks() if groups else ():
            for table, found in zip(self.tables, view.tables(groups, *block), strict=True):
                table.measure(found)
        ended = [plan.ended for plan in self.columns.values()]
        self.ended = max(ended + [table.ended for table in self.tables], default=0.0)

    def path(self, column: int) -> str:
        """The path of a column's group."""
        definition = self.view.schema.columns[column]
        return fmt.series_path(definition, self._forms_before[column], self.root)

    def statistics(self) -> dict[int, Statistics]:
        """The statistics of the columns of numbers that are needed."""
        found = {c: plan.statistics for c, plan in self.columns.items() if plan.statistics}
        for table in self.tables:
            found |= {table.columns[i]: of for i, of in table.statistics.items()}
        return found


def _divided(view: Store, columns: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """The columns that are stored by themselves, and those of each table."""
    together = dict[frozenset[int], list[int]]()
    for column in columns:
        if view.schema.columns[column].is_number:
            together.setdefault(view.within(column), []).append(column)
    rows = view.row_counts()
    tables = [t for t in together.values() if len(t) >= _MANY and rows[t[0]] <= ROWS]
    within = {column for table in tables for column in table}
    return [column for column in columns if column not in within], tables


class Plan:
    """The measurements of a column that its datasets' layout depends on.

    Attributes:
        linked: for parts shared with another column in every row, the path of that part.
        rows: the number of values.
        ended: the time of the last of them.
        statistics: those of a column of numbers, if they are needed; else None.
        single: for each part whether every number is exactly a float32.
        elements: for each part the number of array elements.
    """

    def __init__(
        self, store: Store, column: int, wanted: Collection[str], path: Callable[[int], str]
    ) -> None:
        columns = store.schema.columns
        definition = columns[column]
        self._forms = definition.forms
        self.linked: dict[int, str] = {}
        for part in range(len(self._forms)) if definition.same else ():
            there = store.linked(column, part)
            if there is not None:
                owner, its = there
                self.linked[part] = f"{path(owner)}/{fmt.part_name(columns[owner], its)}"
        self.rows, self.ended = 0, 0.0
        is_summarised = definition.is_number and definition.key in wanted
        self.statistics = Statistics() if is_summarised else None
        self.single = [True] * len(self._forms)
        self.elements = [0] * len(self._forms)

    def measure(self, chunk: Chunk) -> None:
        """Take account of the next rows."""
        if not len(chunk):
            return
        self.rows += len(chunk)
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
        rows, total = min(self.rows, ROWS), 16
        data = _OPEN_BYTES * len(self._forms)
        for form, elements, single in zip(self._forms, self.elements, self.single, strict=True):
            if form.kind == fmt.NUMBER:
                total += 4 if single else 8
            else:
                total += 8 * form.ndim
                data += min(elements * form.dtype.itemsize, DATA_BYTES)
        return rows * total + data


class TablePlan:
    """The measurements of a table: columns of numbers that were only ever added together.

    Attributes:
        columns: the columns; the table has their values in this order.
        rows: the number of values of each.
        ended: the time of the last of them.
        single: whether every number is exactly a float32.
        statistics: those that are needed, by the columns' places in the table.
    """

    def __init__(self, store: Store, columns: Sequence[int], wanted: Collection[str]) -> None:
        self.columns = columns
        self.rows, self.ended, self.single = 0, 0.0, True
        self.keys = [store.schema.columns[column].key for column in columns]
        self.statistics = {i: Statistics() for i, key in enumerate(self.keys) if key in wanted}

    def measure(self, table: Table) -> None:
        """Take account of the next rows."""
        if not len(table.step):
            return
        self.rows += len(table.step)
        self.ended = float(table.time[-1])
        self.single = self.single and _is_single(table.values)
        chosen, found = list(self.statistics), list(self.statistics.values())
        is_all = len(chosen) == len(self.columns)
        take_rows(found, table.step, table.values if is_all else table.values[chosen])


def _is_single(numbers: NDArray[np.float64]) -> bool:
    """Whether every number is exactly a float32, to the bit."""
    with np.errstate(over="ignore", invalid="ignore"):
        back = np.ascontiguousarray(numbers).astype(np.float32).astype(np.float64)
    return np.array_equal(back.view(np.int64), np.ascontiguousarray(numbers).view(np.int64))
