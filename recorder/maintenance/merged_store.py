"""MergedStore: several recordings as one store, with merged events, columns and schema.

In memory it keeps one byte per event, the number of its recording (two bytes from 257 recordings
on); everything else is read block by block. merge_order.py determines the order.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.events import Array
from flexrec.recorder.maintenance.merge_order import (
    Source,
    at_whole_steps,
    in_order,
    in_whole_steps,
)
from flexrec.recorder.maintenance.shards import Rows, Sharded
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import RUN_BYTES, ArrayColumn, Ints
from flexrec.recorder.storage.series import joined
from flexrec.recorder.storage.store import Chunk, Codes, Part, Store, What, block_ends

_NONE: Mapping[str, Sharded] = MappingProxyType({})
_TOGETHER, _LEAST = 64 << 20, 2 << 20  # bytes read at once: of all recordings; least of one
_GAP = 1 << 12  # unused events up to which reading on is better than a separate read


@dataclass
class _Piece:
    """The events of a block that come from one source.

    Attributes:
        number, source: the source and its number.
        span: the first position and the end among the source's events.
        taken: (n,) the events' positions in the source.
        places: (n,) the events' positions in the merged store.
    """

    number: int
    source: Source
    span: tuple[int, int]
    taken: Ints
    places: Ints

    def moved(self, positions: Ints) -> Ints:
        """Convert positions in the source to positions in the merged store."""
        found: Ints = self.places[np.searchsorted(self.taken, positions)]
        return found


class _Schemas:
    """Merges the sources' schemas, in the order in which their entries appear in the events."""

    def __init__(self, schemas: Sequence[fmt.Schema]) -> None:
        self._schemas = schemas
        self._first = np.cumsum([0, *(len(schema.signatures) for schema in schemas)])
        self._codes = np.full(int(self._first[-1]), -1)  # by all sources' signatures, concatenated
        self._columns = dict[fmt.Column, int]()
        self._numbers = [dict[int, int]() for _ in schemas]  # merged, by source's
        self._signatures = dict[tuple[int, ...], int]()
        keysets = dict.fromkeys(each for schema in schemas for each in schema.keysets)
        self._keysets = {keys: number for number, keys in enumerate(keysets)}

    def learn(self, of: Array, codes: Codes) -> None:
        """Add the signatures of the next events."""
        adds = codes >= 0
        known = self._first[of[adds]] + codes[adds]
        fresh = known[self._codes[known] < 0]
        for number in dict.fromkeys(fresh.tolist()):
            source = bisect_right(self._first, number) - 1
            columns = self._schemas[source].signatures[number - self._first[source]]
            signature = tuple([self._learn_column(source, column) for column in columns])
            self._codes[number] = self._signatures.setdefault(signature, len(self._signatures))

    def _learn_column(self, source: int, column: int) -> int:
        """The merged number of a source's column; columns whose parts it shares come first."""
        known, found = self._numbers[source], self._schemas[source].columns[column]
        if column not in known:
            if found.same:
                same = tuple([one and (known[one[0]], one[1]) for one in found.same])
                found = found._replace(same=same)
            known[column] = self._columns.setdefault(found, len(self._columns))
        return known[column]

    def merged(self) -> fmt.Schema:
        """The merged schema."""
        return fmt.Schema(list(self._columns), list(self._signatures), list(self._keysets))

    def columns(self, source: int) -> dict[int, int]:
        """The source's column for each merged column that the source has."""
        return {number: column for column, number in self._numbers[source].items()}

    def codes(self, source: int, codes: Codes) -> Codes:
        """Convert a source's codes to those of the merged schema."""
        found, adds = codes.astype(np.int64), codes >= 0
        found[adds] = self._codes[self._first[source] + found[adds]]
        return found

    def keysets(self, source: int, keys: Ints) -> Ints:
        """Convert a source's key set numbers to those of the merged schema."""
        own = [self._keysets[each] for each in self._schemas[source].keysets]
        found: Ints = np.array([*own, fmt.ALL_KEYS])[keys]  # ALL_KEYS is -1, the last index
        return found


class _Mixed(ArrayColumn):
    """Arrays of several recordings, in the merged order of their events."""

    def __init__(self, parts: Sequence[ArrayColumn], order: Ints) -> None:
        shapes = np.concatenate([part.shapes for part in parts])[order]
        super().__init__(parts[0].source, parts[0].form, order, shapes)
        ends = np.cumsum([len(part) for part in parts])
        self._parts, self._of = parts, np.searchsorted(ends, order, "right")

    def flat(self, run_bytes: int = RUN_BYTES) -> Iterator[Array]:
        """The arrays flattened; with many recordings, smaller pieces of each are read at once."""
        each = min(run_bytes, max(_TOGETHER // len(self._parts), _LEAST))
        pieces = [part.flat(each) for part in self._parts]
        return (next(pieces[i]) for i in self._of.tolist())


class MergedStore(Store):
    """The events of several recordings as one store, without superseded events.

    Args:
        sources: the recordings; at the same step, events of earlier sources come first.
        texts: the config and the facts.
        sharded: the keys whose values of a step are combined into one.
    """

    resumes, orderly = 0, False

    def __init__(
        self,
        sources: Sequence[Source],
        texts: Mapping[str, bytes],
        sharded: Mapping[str, Sharded] = _NONE,
    ) -> None:
        self._sources, self._texts, self._sharded = sources, texts, sharded
        self._schemas = _Schemas([source.store.schema for source in sources])
        self._of: list[Array] = []  # for each block: the source of each event
        self._spans: list[list[tuple[int, int]]] = []  # for each block: its span in each source
        self._ends = array("q")
        self.count = self.mark_count = 0
        ordered = in_order(sources)
        for of, events in in_whole_steps(ordered) if sharded else ordered:
            self._schemas.learn(of, events["code"])
            self.mark_count += int((events["code"] < 0).sum())
            ends = block_ends(np.cumsum(events["slots"]), 0, 0)
            first = 0
            for last in at_whole_steps(events, ends) if sharded else ends:
                self._add_block(of[first:last], events["position"][first:last])
                first = last
        self.schema = self._schemas.merged()
        self._columns = [self._schemas.columns(number) for number in range(len(sources))]
        self._measure()

    def _add_block(self, of: Array, positions: Ints) -> None:
        # A span begins where the last ended, so that stores read on sequentially, except after long
        # gaps: the number of superseded events in between is not bounded.
        before = self._spans[-1] if self._spans else [(0, 0)] * len(self._sources)
        spans = [(end, end) for _, end in before]
        for i in np.unique(of).tolist():
            mine = positions[of == i]
            first, end = int(mine[0]), spans[i][0]
            spans[i] = (first if first - end > _GAP else end, int(mine[-1]) + 1)
        self._of.append(of.copy())
        self._spans.append(spans)
        self.count += len(of)
        self._ends.append(self.count)

    @property
    def created(self) -> float:
        """Just after the earliest creation time of the recordings."""
        # Not equal to it: checkpoints identify a recording by it, and positions differ here.
        return math.nextafter(min(source.store.created for source in self._sources), math.inf)

    def text(self, name: str) -> bytes:
        """The config or the facts."""
        return self._texts[name]

    def stored_bytes(self, column: int) -> int:
        """The size of the column's values in the recordings, in bytes."""
        return sum(
            source.store.stored_bytes(columns[column])
            for source, columns in zip(self._sources, self._columns, strict=True)
            if column in columns
        )

    def marks(self, first: int, last: int) -> tuple[Ints, NDArray[Any]]:
        """The positions and rows of the marks in a block."""
        places, found = [np.empty(0, np.int64)], [np.empty(0, fmt.MARK)]
        for piece in self._pieces(first, last):
            positions, marks = piece.source.store.marks(*piece.span)
            taken = piece.source.takes(marks["code"], positions)
            marks = marks[taken]
            marks["keys"] = self._schemas.keysets(piece.number, marks["keys"])
            places.append(piece.moved(positions[taken]))
            found.append(marks)
        order = np.argsort(np.concatenate(places))
        return np.concatenate(places)[order], np.concatenate(found)[order]

    def chunks(
        self, columns: Sequence[int], first: int, last: int, what: What = "all"
    ) -> list[Chunk]:
        """The rows of each column for the events of a block, without columns that have none."""
        keys = {self.schema.columns[column].key for column in columns}
        sharded = [self._sharded[key] for key in keys & self._sharded.keys()]
        if not sharded or what == "times":
            return self._parted(columns, first, last, what)
        means = {one.mean for one in sharded} - keys
        others = [i for i, column in enumerate(self.schema.columns) if column.key in means]
        parted = {chunk.column: chunk for chunk in self._parted([*columns, *others], first, last)}
        of = self._of[bisect_left(self._ends, last)]
        return [
            self._combined(parted[column], parted, of, first)
            for column in columns
            if column in parted
        ]

    def _combined(self, chunk: Chunk, parted: Mapping[int, Chunk], of: Array, first: int) -> Chunk:
        """The rows of a column, with the values of each step combined if its key is sharded."""
        column = self.schema.columns[chunk.column]
        sharded = self._sharded.get(column.key)
        value = chunk.parts[0]
        if sharded is None or column.reduction is not None or not isinstance(value, np.ndarray):
            return chunk
        mean = None
        if sharded.mean is not None:
            mean = self._aligned(sharded.mean, chunk.positions, parted)
        rows = Rows(value, chunk.step, of[chunk.positions - first].astype(np.int64), mean)
        return replace(chunk, parts=[sharded.combined(rows)])

    def _aligned(
        self, key: str, positions: Ints, parted: Mapping[int, Chunk]
    ) -> NDArray[np.float64]:
        """The numbers of a key that were added at these positions; NaN where there are none."""
        found = np.full(len(positions), math.nan)
        for chunk in parted.values():
            value = chunk.parts[0]
            if self.schema.columns[chunk.column].key == key and isinstance(value, np.ndarray):
                _, here, there = np.intersect1d(positions, chunk.positions, return_indices=True)
                found[here] = value[there]
        return found

    def _parted(
        self, columns: Sequence[int], first: int, last: int, what: What = "all"
    ) -> list[Chunk]:
        """The rows as they were recorded, as `chunks`."""
        found = dict[int, list[tuple[_Piece, Chunk]]]()
        for piece in self._pieces(first, last):
            own = self._columns[piece.number]
            here = {own[column]: column for column in columns if column in own}
            for chunk in piece.source.store.chunks(list(here), *piece.span, what):
                if len(chunk):
                    found.setdefault(here[chunk.column], []).append((piece, chunk))
        shared, chunks = dict[frozenset[int], tuple[Ints, Ints]](), []
        for column in filter(found.__contains__, columns):
            within = self.within(column)
            if within not in shared:
                places = joined([piece.moved(chunk.positions) for piece, chunk in found[column]])
                order = np.argsort(places, kind="stable")
                shared[within] = places[order], order
            chunks.append(_mixed(column, [chunk for _, chunk in found[column]], *shared[within]))
        return chunks

    def close(self) -> None:
        """Close the recordings."""
        for source in self._sources:
            source.store.close()

    # ------------------------------------------------------------------ inside

    def _pieces(self, first: int, last: int) -> Iterator[_Piece]:
        """Iterate over a block's pieces, one for each source that it has events of."""
        block = bisect_left(self._ends, last)
        of, spans = self._of[block], self._spans[block]
        for number, (source, span) in enumerate(zip(self._sources, spans, strict=True)):
            places = np.flatnonzero(of == number) + first
            if len(places):
                codes, positions = source.store.codes(*span), np.arange(*span)
                taken = positions[source.takes(codes, positions)]
                yield _Piece(number, source, span, taken, places)

    def _codes_between(self, first: int, last: int) -> Codes:
        found = np.empty(last - first, np.int64)
        for piece in self._pieces(first, last):
            codes = piece.source.store.codes(*piece.span)[piece.taken - piece.span[0]]
            found[piece.places - first] = self._schemas.codes(piece.number, codes)
        return found

    def _block_ends(self) -> Sequence[int]:
        return self._ends


def _mixed(column: int, chunks: Sequence[Chunk], positions: Ints, order: Ints) -> Chunk:
    """Merge a column's rows of several sources, in order."""

    def put(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        rows = joined(arrays)
        return rows[order] if len(rows) else rows

    parts: list[Part] = []
    for same in zip(*(chunk.parts for chunk in chunks), strict=True):
        ragged = [part for part in same if isinstance(part, ArrayColumn)]
        parts.append(_Mixed(ragged, order) if ragged else put(same))
    step, time = put([chunk.step for chunk in chunks]), put([chunk.time for chunk in chunks])
    return Chunk(column, positions, step, time, parts)
