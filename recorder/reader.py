"""Recording: what replay and users read. Columns by key, events in order."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder import format as fmt
from flexrec.recorder.errors import RecordingError, nearest
from flexrec.recorder.events import Add, Event, Log, Reset, Value
from flexrec.recorder.store import Chunk, Ints, open_store

__all__ = ["Index", "Marks", "Recording", "Row", "Series", "UnknownKeyError"]


class UnknownKeyError(RecordingError, KeyError):
    """The recording has no such key."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


@dataclass(frozen=True)
class Series:
    """Everything that was added under one key, in order.

    Attributes:
        key: the key.
        step: (n,) int64, the step of each add.
        time: (n,) float64, its time, in seconds since 1970.
        value: (n,) float64 where every value is a number; else a list of the values: numbers,
            texts, arrays, and tuples of those.
        position: (n,) int64, where each add stands among the events.
    """

    key: str
    step: Ints
    time: NDArray[np.float64]
    value: NDArray[np.float64] | list[Value]
    position: Ints

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class Index:
    """Where and when values were added: (n,) arrays, in order."""

    position: Ints
    step: Ints
    time: NDArray[np.float64]
    order: Ints  # of the chunks' rows laid end to end

    @classmethod
    def of(cls, chunks: list[Chunk]) -> "Index":
        """The rows of chunks, put in the recorded order."""
        if not chunks:
            none = np.empty(0, np.int64)
            return cls(none, none, np.empty(0), none)
        position = np.concatenate([chunk.positions for chunk in chunks])
        step = np.concatenate([chunk.step for chunk in chunks])
        time = np.concatenate([chunk.time for chunk in chunks])
        order = np.argsort(position, kind="stable")
        return cls(position[order], step[order], time[order], order)


@dataclass(frozen=True, slots=True)
class Row:
    """One value of a key."""

    position: int
    step: int
    time: float
    value: Value


@dataclass(frozen=True)
class Marks:
    """The `log` and `reset` calls, in order: one array element each.

    Attributes:
        position: where each stands among the events.
        is_log: whether it plots (else it only resets).
        x: the position on the plots' x axis.
        reset: whether the meters start anew.
        keys: the meters' names, or None for all.
        step, time: when.
    """

    position: Ints
    is_log: NDArray[np.bool_]
    x: NDArray[np.float64]
    reset: NDArray[np.bool_]
    keys: list[tuple[str, ...] | None]
    step: Ints
    time: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.position)


class Recording:
    """Read a recording, whether it was closed, is being written, or ended in a kill.

    >>> rec = Recording("run.h5")  # doctest: +SKIP
    >>> rec.keys()  # doctest: +SKIP
    ['train_loss', 'train_mse']
    >>> rec["train_loss"].value  # doctest: +SKIP
    array([2.31, 2.28, ...])

    Raises:
        NotARecordingError: the file is not HDF5, or not flexrec's.
        VersionError: a newer flexrec wrote it.
        RecordingError: it does not exist or is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._store, self.closed = open_store(self.path)
        self.config: Any = self._json(fmt.CONFIG)
        self.facts: dict[str, Any] | None = self._json(fmt.FACTS)
        self._columns: dict[str, list[int]] = {}
        for i, column in enumerate(self._store.schema.columns):
            self._columns.setdefault(column.key, []).append(i)
        self.marks = self._read_marks()

    def keys(self) -> list[str]:
        """Every key, in the order of its first appearance."""
        return list(self._columns)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __contains__(self, key: object) -> bool:
        return key in self._columns

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, key: str) -> Series:
        return self.series([key])[key]

    @property
    def event_count(self) -> int:
        """How many events there are: adds, logs and resets."""
        return len(self._store.codes)

    @property
    def dropped(self) -> int:
        """How many events the recorder says that it could not write."""
        marks = self._store.marks
        return int(marks["x"][marks["code"] == fmt.DROPPED].sum())

    def is_number(self, key: str) -> bool:
        """Whether every value of the key is a single number."""
        return all(self._store.schema.columns[c].is_number for c in self._of(key))

    def kind(self, key: str) -> str:
        """What the key's values are, such as `number` or `(float32:2, int64:1)`."""
        kinds = []
        for c in self._of(key):
            column = self._store.schema.columns[c]
            forms = ", ".join(map(str, column.forms))
            kinds.append(forms if column.bare else f"({forms})")
        return " or ".join(kinds)

    @property
    def state(self) -> str:
        """In one line, whether the run ended, and up to where the recording is whole."""
        if self.closed:
            return "closed"
        last = self._store.last_step
        where = "nothing was recorded" if last is None else f"it is whole up to step {last}"
        return f"the run has not ended, or was killed; {where}"

    def series(self, keys: Iterable[str]) -> dict[str, Series]:
        """Several keys in one pass over the file: quicker than one by one."""
        wanted = {key: self._of(key) for key in keys}
        columns = [column for found in wanted.values() for column in found]
        chunks: dict[int, list[Chunk]] = {column: [] for column in columns}
        for block in self._store.scan(columns) if columns else ():
            for chunk in block:
                if len(chunk):
                    chunks[chunk.column].append(chunk)
        return {
            key: self._series(key, [chunk for column in found for chunk in chunks[column]])
            for key, found in wanted.items()
        }

    def index(self, key: str) -> "Index":
        """When a key's values were added, without reading the values."""
        chunks = [c for block in self._store.scan(self._of(key)) for c in block if len(c)]
        return Index.of(chunks)

    def rows(self, key: str) -> Iterator[Row]:
        """One key's values in order, a bounded number of them in memory at a time."""
        for block in self._store.scan(self._of(key)):
            yield from (
                sorted(
                    (row for chunk in block for row in self._rows(chunk)),
                    key=lambda row: row.position,
                )
                if len(block) > 1
                else self._rows(block[0])
            )

    def events(self) -> Iterator[Event]:
        """Every event in the recorded order."""
        schema = self._store.schema
        marks = iter(self._mark_events())
        position = 0
        for block in self._store.scan(range(len(schema.columns))):
            rows = {chunk.column: self._rows(chunk) for chunk in block}
            last = self._store.block_end(position)
            for code in self._store.codes[position:last].tolist():
                if code < 0:
                    mark = next(marks)
                    if mark is not None:
                        yield mark
                    continue
                added = [(schema.columns[c].key, next(rows[c])) for c in schema.signatures[code]]
                values = {key: row.value for key, row in added}
                yield Add(values, added[0][1].step, added[0][1].time)
            position = last

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ inside

    def _of(self, key: str) -> list[int]:
        try:
            return self._columns[key]
        except KeyError:
            raise UnknownKeyError(
                f"{self.path} has no key {key!r}{nearest(key, self._columns)}"
            ) from None

    def _rows(self, chunk: Chunk) -> Iterator[Row]:
        bare = self._store.schema.columns[chunk.column].bare
        where, step, time = chunk.positions.tolist(), chunk.step.tolist(), chunk.time.tolist()
        return map(Row, where, step, time, chunk.values(bare))

    def _series(self, key: str, chunks: list[Chunk]) -> Series:
        index = Index.of(chunks)
        value: NDArray[np.float64] | list[Value]
        if not self.is_number(key):
            values = [row.value for chunk in chunks for row in self._rows(chunk)]
            value = [values[i] for i in index.order.tolist()]
        elif chunks:
            value = np.concatenate([np.asarray(chunk.parts[0]) for chunk in chunks])[index.order]
        else:
            value = np.empty(0)
        return Series(key, index.step, index.time, value, index.position)

    def _read_marks(self) -> Marks:
        store = self._store
        which = np.isin(store.marks["code"], (fmt.LOG, fmt.RESET))
        marks, keysets = store.marks[which], store.schema.keysets
        if len(marks) and not fmt.ALL_KEYS <= marks["keys"].min() <= marks["keys"].max() < max(
            1, len(keysets)
        ):
            raise RecordingError(f"{self.path} is damaged: a mark names unknown keys")
        return Marks(
            store.mark_positions[which],
            marks["code"] == fmt.LOG,
            marks["x"],
            marks["reset"] != 0,
            [None if k == fmt.ALL_KEYS else keysets[k] for k in marks["keys"].tolist()],
            marks["step"],
            marks["time"],
        )

    def _mark_events(self) -> Iterator[Event | None]:
        """An event for each mark; None for those that say something of the recording itself."""
        marks, i = self.marks, 0
        for code in self._store.marks["code"].tolist():
            if code not in (fmt.LOG, fmt.RESET):
                yield None
                continue
            step, time, keys = int(marks.step[i]), float(marks.time[i]), marks.keys[i]
            if code == fmt.LOG:
                yield Log(float(marks.x[i]), keys, bool(marks.reset[i]), step, time)
            else:
                yield Reset(keys, step, time)
            i += 1

    def _json(self, name: str) -> Any:
        try:
            return json.loads(bytes(self._store.file[name][:]))
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise RecordingError(f"{self.path} is damaged: {name}: {error!s:.80}") from None
