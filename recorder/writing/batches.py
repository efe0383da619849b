"""Convert queued events to blocks for the file, and number their signatures.

Only one thread at a time may use it. Numbers never change once given. A batch counts only after
`Batches.written` was set to the batch's `written`, so a batch that could not be written is built
again, identically.
"""

from collections.abc import Sequence
from itertools import islice, starmap
from typing import Any, NamedTuple

import numpy as np

from flexrec.recorder.events import Array
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.writing.event_queue import EventQueue, Signature
from flexrec.recorder.writing.live_file import Block, LiveFile
from flexrec.recorder.writing.values.accelerator import OnDevice, fetched_arrays, fetched_numbers
from flexrec.recorder.writing.values.encoders import Held, Queued

_MOST_EVENTS, _MOST_BYTES = 1 << 16, 8 << 20  # approximate limits of a batch
TOP_WORDS = 2  # words of a record before its slots: step and time


class Written(NamedTuple):
    """The numbers of columns, signatures, key sets and changed texts stored in the file."""

    columns: int
    signatures: int
    keysets: int
    texts: int


class Batch(NamedTuple):
    """A block to append, and what it contains.

    Attributes:
        events: the number of events in the block.
        block: the block, for LiveFile.
        written: what is stored in the file once the block is written.
        weights: bytes of arrays and strings, by key, without those of meters' states.
    """

    events: int
    block: Block
    written: Written
    weights: dict[str, float]


class Batches:
    """Builds batches from queued events.

    Args:
        queue: the queue of the events, which has their signatures and key sets by number.
        schema: the schema that is in the file already.

    Attributes:
        written: how much of the schema is in the file.
        schema: the whole schema; read-only.
    """

    def __init__(self, queue: EventQueue, schema: fmt.Schema) -> None:
        self._queue, self.schema = queue, schema
        # Each maps to a number. Hashing a column may run Python code, where an interrupt may come;
        # a single call of setdefault adds an entry, so that none is ever half added.
        self._columns = {column: i for i, column in enumerate(schema.columns)}
        self._signatures = {columns: i for i, columns in enumerate(schema.signatures)}
        self._keysets = {keyset: i for i, keyset in enumerate(schema.keysets)}
        self.written = self._known(0)
        # The codes in the file, by the queue's numbers; marks keep their codes.
        self._codes = {code: code for code in range(fmt.DROPPED, 0)}
        self._slots: list[fmt.Slots] = []
        self._arrays: dict[int, list[tuple[str | None, int, fmt.Form]]] = {}

    def of(self, events: Sequence[Queued], file: LiveFile) -> Batch:
        """The batch of the first events, as many as fit in one batch."""
        texts = len(self._queue.texts)  # another thread may append to it
        if not events:
            return Batch(0, Block(self._lines(texts)), self._known(texts), {})
        some = events[:_MOST_EVENTS]
        nbytes = np.array([event[3] for event in some], np.int64)
        ends = np.cumsum(nbytes + [len(event[1]) for event in some])
        count = min(int(np.searchsorted(ends, _MOST_BYTES)) + 1, len(some))
        numbers, records, small, _, held = zip(*some[:count], strict=True)
        codes, nbytes = self._codes_of(numbers), nbytes[:count]
        rows, values = self._laid_out(codes, records)
        self._name_keysets(rows, values)
        weights = self._point(rows, values, nbytes, file.blob_bytes)
        _fetch_numbers(rows, values, held)
        rows["start"] += file.value_count
        block = Block(self._lines(texts), _blobs(small, held, nbytes), values, rows)
        return Batch(count, block, self._known(texts), weights)

    @property
    def is_behind(self) -> bool:
        """Whether a change of config or facts is not in the file yet; it needs no event."""
        return self.written.texts < len(self._queue.texts)

    # ------------------------------------------------------------------ the schema

    def _codes_of(self, numbers: Sequence[int]) -> Array:
        for number in dict.fromkeys(numbers):
            if number not in self._codes:
                self._codes[number] = self._code(self._queue.signatures[number])
        return np.array(list(map(self._codes.__getitem__, numbers)), np.int64)

    def _code(self, signature: Signature) -> int:
        numbers: list[int] = []
        for column in signature:
            same = tuple(one and (numbers[one[0]], one[1]) for one in column.same)
            known = column._replace(same=same)
            numbers.append(self._columns.setdefault(known, len(self._columns)))
        code = self._signatures.setdefault(tuple(numbers), len(self._signatures))
        columns, signatures = self.schema.columns, self.schema.signatures
        columns += islice(self._columns, len(columns), None)
        signatures += islice(self._signatures, len(signatures), None)
        missing = signatures[len(self._slots) :]
        self._slots += list(map(self.schema.slots_of, missing))
        return code

    def _name_keysets(self, rows: Array, values: Array) -> None:
        """Replace the queue's numbers of marks' key sets by those in the file."""
        for start in rows["start"][rows["code"] < 0].tolist():
            number = int(values[start + 2])
            if number in self._queue.keysets:
                keyset = self._queue.keysets[number]
                values[start + 2] = self._keysets.setdefault(keyset, len(self._keysets))

    def _known(self, texts: int) -> Written:
        return Written(len(self._columns), len(self._signatures), len(self._keysets), texts)

    def _lines(self, texts: int) -> bytes:
        """The lines to append: the schema's new entries, and config and facts if they changed.

        Args:
            texts: how many changes of config and facts are to be in the file.
        """
        columns, signatures, keysets, known = self.written
        lines = list(map(fmt.Schema.column_line, islice(self._columns, columns, None)))
        lines += map(fmt.Schema.signature_line, islice(self._signatures, signatures, None))
        lines += map(fmt.Schema.keyset_line, islice(self._keysets, keysets, None))
        lines += starmap(fmt.Schema.text_line, dict(self._queue.texts[known:texts]).items())
        return b"".join(lines)

    # ------------------------------------------------------------------ the values

    def _laid_out(self, codes: Array, records: Sequence[bytes]) -> tuple[Array, Array]:
        """The events' rows and slots; `start` is relative to the first slot."""
        words = np.frombuffer(b"".join(records), "<f8")
        totals = np.array([*(slots.total for slots in self._slots), fmt.MARK_SLOTS])
        lengths = totals[np.maximum(codes, -1)] + TOP_WORDS  # the last total is that of marks
        at = np.cumsum(lengths) - lengths
        rows = np.empty(len(codes), fmt.EVENT)
        rows["code"], rows["step"], rows["time"] = codes, words.view("<i8")[at], words[at + 1]
        rows["start"] = at - TOP_WORDS * np.arange(len(codes))
        are_slots = np.ones(len(words), bool)
        are_slots[at] = are_slots[at + 1] = False
        return rows, words[are_slots]

    def _point(self, rows: Array, values: Array, nbytes: Array, blob_base: int) -> dict[str, float]:
        """Set the slots of arrays to their places in the file; return bytes of arrays by key."""
        weights: dict[str, float] = {}
        firsts = blob_base + np.cumsum(nbytes) - nbytes
        for code in np.unique(rows["code"][nbytes > 0]).tolist():
            which = rows["code"] == code
            starts = rows["start"][which]
            for key, slot, form in self._arrays_of(code):
                at = starts + slot
                values[at] += firsts[which]
                sizes = values[at[:, None] + np.arange(1, form.slots)].prod(axis=1)
                if key is not None:
                    weights[key] = weights.get(key, 0.0) + form.dtype.itemsize * float(sizes.sum())
        return weights

    def _arrays_of(self, code: int) -> list[tuple[str | None, int, fmt.Form]]:
        """The key (None for a meter's state), first slot and form of each array of a signature."""
        if code not in self._arrays:
            found: list[tuple[str | None, int, fmt.Form]] = []
            slot = 0
            for number in self.schema.signatures[code]:
                column = self.schema.columns[number]
                key = column.key if column.reduction is None else None
                for part, form in enumerate(column.forms):
                    if column.shares(part):
                        continue
                    if form.kind != fmt.NUMBER:
                        found.append((key, slot, form))
                    slot += form.slots
            self._arrays[code] = found
        return self._arrays[code]


def _fetch_numbers(rows: Array, values: Array, held: Sequence[Held | None]) -> None:
    """Fetch numbers from accelerators into their slots."""
    waiting = [
        ([start + slot for slot in slots], tensor)
        for start, one in zip(rows["start"].tolist(), held, strict=True)
        if one is not None
        for slots, tensor in one.waiting
    ]
    if waiting:
        slots, numbers = fetched_numbers(waiting)
        values[slots] = numbers


def _blobs(small: Sequence[bytes], held: Sequence[Held | None], nbytes: Array) -> list[Array]:
    """All arrays in order, including those fetched from an accelerator."""
    blobs: list[Any] = []
    for i in np.flatnonzero(nbytes).tolist():
        one = held[i]
        blobs += [small[i]] if one is None else one.blobs
    there = [blob for blob in blobs if isinstance(blob, OnDevice)]
    fetched = iter(fetched_arrays(there) if there else ())
    return [
        next(fetched)
        if isinstance(blob, OnDevice)
        else np.frombuffer(blob, "u1")
        if isinstance(blob, bytes)
        else blob
        for blob in blobs
    ]
