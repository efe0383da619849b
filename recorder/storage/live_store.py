"""Read the live layout: the file of a running, killed or cleanly stopped writer.

No events are kept in memory: each block is read again whenever it is needed.
"""

from array import array
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.hdf5.dataset import UntrustedDataset
from flexrec.recorder.hdf5.file import UntrustedFile
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import ArrayColumn, Ints, sizes_fit
from flexrec.recorder.storage.journal.reader import JournalledDataset, journal_of
from flexrec.recorder.storage.journal.records import checksum
from flexrec.recorder.storage.store import (
    Chunk,
    Codes,
    Finder,
    Part,
    Store,
    Table,
    What,
    block_ends,
    of_training,
    shown,
    times_resumed,
)

_BENT = "its %s is not as it was written"
_PIECE = 1 << 17  # events that are checked at a time when opening


@dataclass
class _Block:
    """Consecutive events and their values."""

    events: NDArray[Any]
    codes: Codes  # SUPERSEDED for events that this view does not show
    values: NDArray[np.float64]
    finder: Finder

    def starts(self, rows: Ints) -> Ints:
        """The indices in `values` where the slots of some events begin."""
        found: Ints = self.events["start"][rows] - self.events["start"][0]
        return found


class LiveStore(Store):
    """A store of the live layout: growing datasets of events, values and blobs, and the schema."""

    _accepts = False

    def __init__(self, file: UntrustedFile) -> None:
        self.file = file
        self._journal = journal_of(file)
        self._events = self._dataset(fmt.EVENTS)
        self._schema_text = self._dataset(fmt.SCHEMA)
        self._values = self._dataset(fmt.VALUES)
        self._blobs = self._dataset(fmt.BLOBS)
        file.refresh()  # a writer may have appended to it meanwhile
        self.schema, self._schema_bytes = fmt.Schema(), 0
        self._supersede(self._load(0, 0))
        self.last_step = self._last_step()

    def tail(self) -> "LiveStore":
        """The events appended since this store was read, as a new store; ignores resumes."""
        if self._journal is not None:
            self._journal.refresh()
        for dataset in (self._events, self._schema_text, self._blobs, self._values):
            if isinstance(dataset, UntrustedDataset):
                dataset.refresh()
        new = copy(self)
        new._superseded = new._hidden = ()
        new._tally = None
        new._load(self._first + self.count, self._end)
        return new

    def text(self, name: str) -> bytes:
        """As Store.text; `null` if it is not as it was written and damage is accepted.

        Raises:
            DamagedError: it is not as it was written, and damage is not accepted.
        """
        found = super().text(name)
        if self._is_as_written(name, found):
            return found
        if not self._accepts:
            raise self.file.damaged(_BENT % name)
        return b"null"

    def _is_as_written(self, name: str, text: bytes) -> bool:
        """Whether config or facts can be parsed, and match their checksum if they have one.

        If they changed, a block's checksum covers them.
        """
        try:
            fmt.parsed(name, text)
        except ValueError:
            return False
        sums = self.file.attribute(fmt.ATTR_TEXT_CHECKSUMS)
        if name in self.schema.texts or not isinstance(sums, int):
            return True
        return checksum(text) == (sums >> 32 if name == fmt.FACTS else sums & 0xFFFFFFFF)

    def damage(self) -> str | None:
        """As Store.damage; also reports config and facts."""
        names = (fmt.CONFIG, fmt.FACTS)
        texts = dict(zip(names, map(super().text, names), strict=True))
        bent = [name for name, text in texts.items() if not self._is_as_written(name, text)]
        return "; ".join(filter(None, [super().damage(), *(_BENT % name for name in bent)])) or None

    def damaged_from(self, *, is_strict: bool = True) -> int | None:
        """As Store.damaged_from; uses the journal's checksums if there is a journal."""
        if self._journal is None:
            return None
        if not is_strict:
            return self._journal.damaged
        strict = self._journal.strictly()
        first = strict.event_count if strict.damaged is None else strict.damaged
        return first if first < self.count else None

    def accept_damage(self) -> None:
        """Read arrays and strings even if they do not match their checksums; leave texts out."""
        self._accepts = True
        if self._journal is not None:
            self._journal.accept_arrays()

    def stored_bytes(self, column: int) -> int:
        """The uncompressed size of the column's values in the file, in bytes."""
        definition = self.schema.columns[column]
        total = 8 * definition.slots * self.row_counts()[column]
        for (chunk,) in self.scan([column]) if definition.has_arrays else ():
            for i, part in enumerate(chunk.parts):
                if isinstance(part, ArrayColumn) and not definition.shares(i):
                    total += part.nbytes
        return total

    def marks(self, first: int, last: int) -> tuple[Ints, NDArray[Any]]:
        """The positions and rows of the marks among events `first` to `last`."""
        block = self._block(first, last)
        where = np.flatnonzero((block.codes < 0) & (block.codes != fmt.SUPERSEDED))
        events, starts = block.events[where], block.starts(where)
        marks = np.empty(len(where), fmt.MARK)
        for name in ("code", "step", "time"):
            marks[name] = events[name]
        for i, name in enumerate(("x", "reset", "keys")):
            marks[name] = block.values[starts + i]
        return where + first, marks

    def chunks(
        self, columns: Sequence[int], first: int, last: int, what: What = "all"
    ) -> list[Chunk]:
        """The rows of each column for the events of a block."""
        block = self._block(first, last, values=what != "times")
        shared: dict[frozenset[int], tuple[Ints, Ints, Ints, NDArray[np.float64]]] = {}
        chunks = []
        for column in columns:
            within = self.within(column)
            if within not in shared:
                rows = self._rows_in(block.finder, column)
                step, time = block.events["step"][rows], block.events["time"][rows]
                shared[within] = rows, rows + first, step, time
            rows, where, step, time = shared[within]
            parts = self._parts(block, column, rows) if what != "times" else []
            chunks.append(Chunk(column, where, step, time, parts))
        return chunks

    def tables(self, groups: Sequence[Sequence[int]], first: int, last: int) -> list[Table]:
        """As Store.tables."""
        block = self._block(first, last) if groups else None
        return [self._table(block, group, first) for group in groups] if block else []

    def _table(self, block: _Block, group: Sequence[int], first: int) -> Table:
        signatures = [s for s, _ in self._places[group[0]]]
        offsets = np.array([[at for _, at in self._places[c]] for c in group], np.int64)
        rows = self._rows_in(block.finder, group[0])
        starts, of = block.starts(rows), np.searchsorted(signatures, block.codes[rows])
        values = block.values[starts + offsets[:, of]]
        events = block.events[rows]
        return Table(rows + first, events["step"].copy(), events["time"].copy(), values)

    # ------------------------------------------------------------------ opening

    def _dataset(self, name: str) -> UntrustedDataset | JournalledDataset:
        if self._journal is not None:
            return JournalledDataset(self._journal, name)
        return self.file.dataset(name, (fmt.LIVE_LAYOUT[name][0],))

    def _load(self, first: int, slot: int) -> list[tuple[int, float]]:
        """Check the events from position `first` on, whose values begin at `slot`.

        Returns:
            For each resume its position, and the first position that it supersedes.
        """
        self._first, self._ends = first, array("q")
        # Read the events first: the data that they point at is in the file by then.
        stored = max(self._events.stored() - first, 0)
        if len(self._schema_text) > self._schema_bytes:
            text = self._schema_text[: self._schema_text.stored()].tobytes()
            self.schema, self._schema_bytes = self._decoded(text), len(text)
        self._measure()
        self.count = self.mark_count = 0
        self._array_bytes, self.orderly = 0.0, True
        resumes: list[tuple[int, float]] = []
        while self.count < stored:
            begin, last = self.count, min(self.count + _PIECE, stored)
            events = self._events[first + begin : first + last]
            slot = self._take(events, slot)
            resumes += self._resumes(events[: self.count - begin], begin)
            if self.count < last:
                break
        self._end, self.resumes = slot, times_resumed([position for position, _ in resumes])
        self.cut = max(len(self._events) - first, 0) - self.count
        if self._journal is not None:
            self.is_torn = not self.cut and self._journal.is_torn
            self.cut += self._journal.left_out
        return resumes

    def _take(self, events: NDArray[Any], slot: int) -> int:
        """Count the leading events that are whole; return the slot where the next would begin."""
        codes = events["code"]
        known = (codes < len(self.schema.signatures)) & (codes >= fmt.DROPPED)
        codes = codes[: _leading(known)]
        ends = np.cumsum(self.sizes(codes)) + slot
        right = events["start"][: len(codes)] == np.concatenate([[slot], ends[:-1]])[: len(codes)]
        ends = ends[: _leading(right & (ends <= self._values.stored()))]
        begin, ragged = self.count, [c.has_arrays for c in self.schema.columns]
        for last in block_ends(ends, begin, slot):
            block = events[self.count - begin : last - begin]
            whole = self._reachable(block, np.flatnonzero(ragged).tolist()) if any(ragged) else None
            if whole is not None and whole < len(block):
                self._add_end(self.count + whole)
                break
            self._add_end(last)
        codes = codes[: self.count - begin]
        self.mark_count += int((codes < 0).sum())
        self.orderly = self.orderly and not (codes < fmt.RESET).any()
        return int(ends[len(codes) - 1]) if len(codes) else slot

    def _add_end(self, last: int) -> None:
        if last > self.count:
            self._ends.append(last)
            self.count = last

    def _reachable(self, events: NDArray[Any], ragged: Sequence[int]) -> int:
        """The number of leading events whose arrays and strings are in the file."""
        block, stored, whole = self._block_of(events, events["code"]), self._blobs.stored(), []
        for column in ragged:
            rows, definition = self._rows_in(block.finder, column), self.schema.columns[column]
            for part, form in enumerate(definition.forms):
                if form.kind != fmt.NUMBER and not definition.shares(part):
                    sizes = _gather(block.values, self._slots(block, column, part, rows), form)
                    fit = _leading(sizes_fit(sizes, form, stored))
                    whole += [int(rows[fit])] if fit < len(rows) else []
                    self._array_bytes += sizes[:fit, 1:].prod(axis=1).sum() * form.dtype.itemsize
        if self._array_bytes > stored:
            raise self.file.damaged("arrays lie upon one another")
        return min(whole, default=len(events))

    def _resumes(self, events: NDArray[Any], begin: int) -> list[tuple[int, float]]:
        found = np.flatnonzero(events["code"] == fmt.RESUME).tolist()
        starts = events["start"][found].tolist()
        firsts = [float(self._values[at : at + 1][0]) for at in starts]
        return [(begin + i, first) for i, first in zip(found, firsts, strict=True)]

    def _last_step(self) -> int | None:
        for first, last in reversed(list(self.blocks())):
            codes = self.codes(first, last)
            is_training = of_training(codes, self.schema.keys_of)
            left = np.flatnonzero((codes >= fmt.RESET) & is_training)
            if len(left):
                at = self._first + first + int(left[-1])
                return int(self._events[at : at + 1]["step"][0])
        return None

    # ------------------------------------------------------------------ reading

    def _block_ends(self) -> Sequence[int]:
        return self._ends

    def _codes_between(self, first: int, last: int) -> Codes:
        codes: Codes = self._events[self._first + first : self._first + last]["code"].copy()
        return codes

    def _block(self, first: int, last: int, *, values: bool = True) -> _Block:
        events = self._events[self._first + first : self._first + last]
        return self._block_of(events, shown(events["code"], first, self._hidden), values=values)

    def _block_of(self, events: NDArray[Any], codes: Codes, *, values: bool = True) -> _Block:
        finder = self._finder(codes)
        if not len(events) or not values:
            return _Block(events, codes, np.empty(0), finder)
        high = int(events["start"][-1]) + int(self.sizes(events["code"][-1:])[0])
        return _Block(events, codes, self._values[int(events["start"][0]) : high], finder)

    def _slots(self, block: _Block, column: int, part: int, rows: Ints) -> Ints:
        """The slots where a column's part begins, in the rows that have the column."""
        column, part = self.schema.owner(column, part)
        starts = block.starts(rows) + self.schema.columns[column].slots_before(part)
        places = self._places[column]
        if len(places) == 1:
            return starts + places[0][1]
        slots: Ints = starts + self.slot_offsets(column, block.codes[rows])
        return slots

    def _parts(self, block: _Block, column: int, rows: Ints) -> list[Part]:
        parts: list[Part] = []
        for i, form in enumerate(self.schema.columns[column].forms):
            slots = self._slots(block, column, i, rows)
            if form.kind == fmt.NUMBER:
                parts.append(block.values[slots])
            else:
                found = _gather(block.values, slots, form)
                if not sizes_fit(found, form, len(self._blobs)).all():
                    raise self.file.damaged("an array lies outside of the file")
                sizes = found.astype(np.int64)
                parts.append(ArrayColumn(self._blobs, form, sizes[:, 0], sizes[:, 1:]))
        return parts


def _leading(true: NDArray[np.bool_]) -> int:
    """The number of leading true values."""
    return len(true) if true.all() else int(true.argmin())


def _gather(values: NDArray[np.float64], slots: Ints, form: fmt.Form) -> NDArray[np.float64]:
    """(n, slots) The slots of a form, one row for each slot where they begin."""
    rows: NDArray[np.float64] = values[slots[:, None] + np.arange(form.slots)]
    return rows
