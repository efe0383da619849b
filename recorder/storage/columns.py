"""Read a recording's values by key, all at once or, for replay, a bounded number at a time.

This module maps keys to columns of the file. The public class is in recorder/recording.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import RecordingError, UnknownKeyError, nearest
from flexrec.recorder.events import Array, Value
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn, Ints
from flexrec.recorder.storage.series import Index, Row, Series, joined, rows_of
from flexrec.recorder.storage.store import Chunk, Store, What

Column = tuple[Ints, NDArray[np.float64]]
"""The positions among the events, and the values, of a key whose values are all numbers."""


class ColumnReader:
    """Reads the values of a recording's keys.

    Its methods raise the same errors as `Recording`: UnknownKeyError for a missing key,
    DamagedError for damaged data, RecordingError for a file that cannot be read.

    Attributes:
        of: the numbers of each key's columns in the file, in the order of the keys' first
            appearance.
    """

    def __init__(self, path: Path, store: Store) -> None:
        self._path, self._store = path, store
        self.of: dict[str, list[int]] = {}
        for i in _by_appearance(store):
            self.of.setdefault(store.schema.columns[i].key, []).append(i)

    @property
    def file_bytes(self) -> int:
        """The size of the file in bytes."""
        return self._store.file.size

    @property
    def read_bytes(self) -> int:
        """The number of bytes read from the file so far, counting repeated reads."""
        return self._store.file.read_bytes

    # ------------------------------------------------------------------ keys

    def counts(self, first: int = 0) -> dict[str, int]:
        """The number of values of each key, from the event at position `first` on."""
        rows = self._store.row_counts(first)
        return {key: sum(rows[c] for c in columns) for key, columns in self.of.items()}

    def is_number(self, key: str) -> bool:
        """Whether every value of the key is a single number."""
        return all(self._store.schema.columns[c].is_number for c in self._of(key))

    def kind(self, key: str) -> str:
        """The type of the key's values, such as `number` or `(float32:2, int64:1)`."""
        kinds = []
        for c in self._of(key):
            column = self._store.schema.columns[c]
            forms = ", ".join(map(str, column.forms))
            kind = forms if column.bare else f"({forms})"
            kinds.append(f"state of {column.reduction}" if column.reduction else kind)
        return " or ".join(dict.fromkeys(kinds))

    def is_plain(self, key: str) -> bool:
        """Whether every value of the key is a number or a string."""
        return set(self.kind(key).split(" or ")) <= {fmt.NUMBER, fmt.TEXT}

    def stored_bytes(self, key: str) -> int:
        """The size of the key's values in the file in bytes, compressed if the run has ended.

        Steps and times, which keys may share, are not counted. An array that was added under
        several keys counts for the first of them.
        """
        return sum(map(self._store.stored_bytes, self._of(key)))

    # ------------------------------------------------------------------ whole keys

    def series(self, keys: Iterable[str]) -> dict[str, Series]:
        """All values of several keys, in one pass over the file."""
        return self._read(keys, "all")

    def columns(self, keys: Iterable[str]) -> dict[str, Column]:
        """Read the positions and numbers of several keys in one pass.

        Raises:
            RecordingError: not every value of a key is a number.
        """
        found = self._read(map(self._number, keys), "values")
        return {key: (series.position, series.value) for key, series in found.items()}

    def index(self, key: str) -> Index:
        """The positions, steps and times of a key's values, without reading the values."""
        blocks = self._store.scan(self._of(key), "times")
        return Index.of([chunk for chunks in blocks for chunk in chunks if len(chunk)])

    # ------------------------------------------------------------------ a part at a time

    def groups(self, keys: Iterable[str], most: int = 1 << 22) -> Iterator[list[str]]:
        """Split keys into groups with at most `most` values together; a larger key is alone."""
        counts, group, size = self.counts(), list[str](), 0
        for key in keys:
            if group and size + counts[key] > most:
                yield group
                group, size = [], 0
            group.append(key)
            size += counts[key]
        if group:
            yield group

    def parts(self, keys: Iterable[str], most: int = 1 << 22) -> Iterator[Series]:
        """Read one key after the other, a key with more than `most` values in several parts."""
        counts = self.counts()
        for group in self.groups(keys, most):
            if counts[group[0]] <= most:
                yield from self.series(group).values()
                continue
            for chunks in self._store.scan(self._of(group[0])):
                yield self._series(group[0], [[chunk] for chunk in chunks if len(chunk)], {})

    def numbers(self, key: str) -> Iterator[tuple[int, Column]]:
        """Read a key's numbers in parts, with a bounded number of values in memory at a time.

        Yields:
            A position, and the part of the column up to that position.

        Raises:
            RecordingError: not every value of the key is a number.
        """
        column = self._of(self._number(key))
        for first, last in self._store.blocks():
            (chunk,) = self._store.chunks(column, first, last, "values")
            yield last, (chunk.positions, np.asarray(chunk.parts[0]))

    def when(self, keys: Iterable[str]) -> Iterator[Index]:
        """When any of the keys was added, with a bounded number of adds in memory at a time."""
        columns = [column for key in keys for column in self._of(key)]
        alone = list({self._store.within(column): column for column in columns}.values())
        for chunks in self._store.scan(alone, "times"):
            found = Index.of([chunk for chunk in chunks if len(chunk)])
            position, first = np.unique(found.position, return_index=True)
            yield Index(position, found.step[first], found.time[first])

    def rows(self, key: str) -> Iterator[Row]:
        """Iterate over one key's values in order, with a bounded number of them in memory."""
        columns = self._of(key)
        for block in self._store.scan(columns):
            rows = (rows_of(self._store, chunk) for chunk in block)
            yield from merge(*rows, key=lambda row: row.position)

    # ------------------------------------------------------------------ two recordings

    def alike(self, key: str, other: "ColumnReader", its: str) -> int:
        """The number of leading numbers and steps stored in the same bytes as another key's.

        The other key may be in another recording. 0 if that is unknown without reading values.
        """
        mine, theirs = self._of(key), other._of(its)
        if len(mine) != 1 or len(theirs) != 1:
            return 0
        return self._store.alike(mine[0], other._store, theirs[0])

    def added_with(self, key: str) -> frozenset[int]:
        """A set that is equal for keys with the same steps; empty if nothing is known."""
        columns = self._of(key)
        return self._store.within(columns[0]) if len(columns) == 1 else frozenset()

    def between(self, keys: Sequence[str], first: int, last: int) -> dict[str, Array]:
        """The numbers added under the keys from event `first` up to `last`."""
        columns = [column for key in keys for column in self._of(self._number(key))]
        chunks = self._store.chunks(columns, first, last, "values")
        return {key: np.asarray(chunk.parts[0]) for key, chunk in zip(keys, chunks, strict=True)}

    # ------------------------------------------------------------------ inside

    def _of(self, key: str) -> list[int]:
        try:
            return self.of[key]
        except KeyError:
            raise UnknownKeyError(
                f"{self._path} has no key {key!r}{nearest(key, self.of)}"
            ) from None

    def _number(self, key: str) -> str:
        if not self.is_number(key):
            raise RecordingError(f"{self._path}: not every value of {key!r} is a number")
        return key

    def _read(self, keys: Iterable[str], what: What) -> dict[str, Series]:
        wanted = {key: self._of(key) for key in keys}
        columns = [column for found in wanted.values() for column in found]
        chunks: dict[int, list[Chunk]] = {column: [] for column in columns}
        nbytes = 0
        held: dict[tuple[tuple[int, int], int], ArrayColumn] = {}
        for chunk in self._store.everything(columns, what):
            if len(chunk):
                nbytes += chunk.nbytes
                for i, part in enumerate(chunk.parts):
                    if isinstance(part, ArrayColumn):  # if keys share it, read it once
                        owner = self._store.linked(chunk.column, i) or (chunk.column, i)
                        whole = held.setdefault((owner, int(chunk.positions[0])), part)
                        if whole is not part:
                            chunk.parts[i], whole.is_kept = whole, True
                            nbytes -= part.nbytes
                chunks[chunk.column].append(chunk)
                self._store.file.allow(nbytes, f"all of {len(wanted)} keys at once")
        indices: dict[frozenset[int], Index] = {}
        return {
            key: self._series(key, [chunks[column] for column in found], indices)
            for key, found in wanted.items()
        }

    def _series(
        self, key: str, found: list[list[Chunk]], indices: dict[frozenset[int], Index]
    ) -> Series:
        """Join the chunks of a key's columns; columns added together share one index."""
        chunks = [chunk for column in found for chunk in column]
        within = self._store.within(chunks[0].column) if len(found) == 1 and chunks else frozenset()
        index = indices.get(within) or Index.of(chunks)
        if within:
            indices[within] = index
        value: NDArray[np.float64] | list[Value]
        if self.is_number(key):
            value = joined([np.empty(0), *(np.asarray(chunk.parts[0]) for chunk in chunks)])
            value = value if index.order is None else value[index.order]
        else:
            value = [row.value for chunk in chunks for row in rows_of(self._store, chunk)]
            value = value if index.order is None else [value[i] for i in index.order.tolist()]
        return Series(key, index.step, index.time, value, index.position)


def _by_appearance(store: Store) -> Sequence[int]:
    """The columns in order of their keys' first appearance, those not superseded first."""
    columns = range(len(store.schema.columns))
    if store.orderly:
        return columns  # in the schema's order, since nothing was superseded or dropped
    seen = dict[int, None]()
    for block in store.blocks():
        codes, first = np.unique(store.codes(*block), return_index=True)
        seen |= dict.fromkeys(codes[np.argsort(first)].tolist())
    order = dict.fromkeys(c for code in seen if code >= 0 for c in store.schema.signatures[code])
    return [*order, *(c for c in columns if c not in order)]
