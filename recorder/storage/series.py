"""The results of reading: series, rows, indices and marks, built from a store's chunks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import DamagedError, MissingDependency, counted
from flexrec.recorder.events import Add, Event, Log, Reset, State, Value
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import Ints
from flexrec.recorder.storage.store import Chunk, Store

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Series:
    """All values added under one key, in order.

    Keys that were added together may share `step`, `time` and `position`, which are read-only.

    Attributes:
        key: the key.
        step: (n,) int64, the step of each add.
        time: (n,) float64, the time of each add, in seconds since 1970.
        value: (n,) float64 if every value is a number; else a list of the values: numbers,
            strings, arrays, and tuples of those. If several keys are read together, an array
            recorded once for several of them is a single object.
        position: (n,) int64, the position of each add among the events.
    """

    key: str
    step: Ints
    time: NDArray[np.float64]
    value: Any  # with a union type, every caller would have to check which it is
    position: Ints

    def __len__(self) -> int:
        return len(self.step)

    def __repr__(self) -> str:
        if not len(self):
            return f"<Series {self.key!r}: no values>"
        last, steps = repr(self.value[-1]), f"steps {self.step[0]} to {self.step[-1]}"
        if isinstance(self.value, np.ndarray):
            last = f"{self.value[-1]:g}"
        return f"<Series {self.key!r}: {counted(len(self), 'value')}, {steps}, last {last:.40}>"

    def to_pandas(self) -> "pandas.Series[Any]":
        """Return the values as a pandas Series, indexed by step.

        >>> Recording("run.h5")["train_loss"].to_pandas().loc[0]
        np.float64(1.0)

        Raises:
            MissingDependency: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependency.of("to_pandas", "pandas") from error
        index = pd.Index(self.step, name="step")
        return pd.Series(self.value, index, name=self.key)


class Index(NamedTuple):
    """The positions, steps and times of values: (n,) arrays, in order."""

    position: Ints
    step: Ints
    time: NDArray[np.float64]
    order: Ints | None = None  # sorts the concatenated rows of the chunks; None: already sorted

    @classmethod
    def of(cls, chunks: Sequence[Chunk]) -> "Index":
        """The index of the rows of several chunks, in the recorded order."""
        order = None
        position = joined([np.empty(0, np.int64), *(chunk.positions for chunk in chunks)])
        step = joined([np.empty(0, np.int64), *(chunk.step for chunk in chunks)])
        time = joined([np.empty(0), *(chunk.time for chunk in chunks)])
        if len({chunk.column for chunk in chunks}) > 1:
            order = np.argsort(position, kind="stable")
            position, step, time = position[order], step[order], time[order]
        for shared in (position, step, time):
            shared.flags.writeable = False
        return cls(position, step, time, order)


class Row(NamedTuple):
    """One value of a key."""

    position: int
    step: int
    time: float
    value: Value


@dataclass(frozen=True, repr=False)
class Marks:
    """The `log` and `reset` calls, in order: one array element each.

    Attributes:
        position: the position of each mark among the events.
        is_log: whether it is a log, which plots; else it is a reset.
        x: the position on the plots' x axis.
        reset: whether the meters are reset.
        keys: the meters' keys, or None for all.
        step, time: the step and time of each mark.
        axis: the name of x, or None if it has no name.
    """

    position: Ints
    is_log: NDArray[np.bool_]
    x: NDArray[np.float64]
    reset: NDArray[np.bool_]
    keys: list[tuple[str, ...] | None]
    step: Ints
    time: NDArray[np.float64]
    axis: list[str | None]

    def __len__(self) -> int:
        return len(self.position)

    def __repr__(self) -> str:
        logs = int(self.is_log.sum())
        last = f", last at x = {self.x[self.is_log][-1]:g}" if logs else ""
        return f"<Marks: {counted(logs, 'log')}{last}, {counted(len(self) - logs, 'reset')}>"


def events_of(store: Store, first: int = 0) -> Iterator[Event]:
    """Iterate over a store's events from position `first` on, except superseded ones."""
    schema = store.schema
    columns = range(len(schema.columns))
    for block in store.blocks(first):
        rows = {chunk.column: rows_of(store, chunk) for chunk in store.chunks(columns, *block)}
        marks, mark = marks_of(store, [store.marks(*block)]), 0
        for code in store.codes(*block).tolist():
            if code >= 0:
                found = schema.signatures[code]
                added = [(schema.columns[c].key, next(rows[c])) for c in found]
                values = {key: row.value for key, row in added}
                yield Add(values, added[0][1].step, added[0][1].time)
            elif code >= fmt.RESET:
                yield _mark_event(marks, mark)
                mark += 1


def _mark_event(marks: Marks, i: int) -> Event:
    step, time, keys = int(marks.step[i]), float(marks.time[i]), marks.keys[i]
    if marks.is_log[i]:
        return Log(float(marks.x[i]), keys, bool(marks.reset[i]), step, time, marks.axis[i])
    return Reset(keys, step, time)


def marks_of(store: Store, found: Sequence[tuple[Ints, NDArray[Any]]]) -> Marks:
    """The logs and resets among marks, given by their positions and rows."""
    position = joined([np.empty(0, np.int64), *(where for where, _ in found)])
    marks = joined([np.empty(0, fmt.MARK), *(rows for _, rows in found)])
    which, keysets = marks["code"] >= fmt.RESET, store.schema.keysets
    position, marks = position[which], marks[which]
    if len(marks) and not fmt.ALL_KEYS <= marks["keys"].min() <= marks["keys"].max() < max(
        1, len(keysets)
    ):
        raise DamagedError.of(store.file.path, "a mark names unknown keys")
    named = [fmt.EVERY_KEY if k == fmt.ALL_KEYS else keysets[k] for k in marks["keys"].tolist()]
    return Marks(
        position,
        marks["code"] == fmt.LOG,
        marks["x"],
        marks["reset"] != 0,
        [keyset.keys for keyset in named],
        marks["step"],
        marks["time"],
        [keyset.axis for keyset in named],
    )


def rows_of(store: Store, chunk: Chunk) -> Iterator[Row]:
    """Iterate over a chunk's rows."""
    column = store.schema.columns[chunk.column]
    where, step, time = chunk.positions.tolist(), chunk.step.tolist(), chunk.time.tolist()
    values = chunk.values(column.bare)
    if column.reduction is not None:
        values = (State(parts, column.reduction) for parts in values)  # type: ignore[arg-type]
    return map(Row, where, step, time, values)


def joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate arrays; if only one is not empty, return it without a copy."""
    filled = [array for array in arrays if len(array)] or arrays[:1]
    return filled[0] if len(filled) == 1 else np.concatenate(filled)
