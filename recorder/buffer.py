"""Events on their way from `add` to the file, in the bytes that they will have there."""

import struct
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from flexrec.recorder import format as fmt
from flexrec.recorder.events import Array, Part
from flexrec.recorder.on_device import Numbers, OnDevice, fetched_arrays, fetched_numbers, gathered
from flexrec.recorder.writer import SMALL, Block

if TYPE_CHECKING:
    import torch

__all__ = ["Buffer", "Draft", "Entry", "Slabs", "code_word", "pack_top", "record_of"]

_SLAB = 12 << 20  # bytes of memory that large arrays are copied to: those of a full buffer
_PAGE = 2 << 20  # bytes of a huge page: new memory comes at twice the pace in whole ones
_SPARE = 8  # slabs that are kept for later
_TOP = struct.Struct("<qd")
pack_top = _TOP.pack  # of step and time: a record's beginning, which its slots follow
_TOP_WORDS = 2  # words of a record that come before its slots
_CODE = struct.Struct("<iiq")
_CODES = np.dtype([("code", "<i4"), ("waiting", "<i4"), ("nbytes", "<i8")])


def record_of(slots: int) -> struct.Struct:
    """An event of so many slots, as it waits here: step, time, slots."""
    return struct.Struct(f"{_TOP.format}{slots}d")


def code_word(code: int, nbytes: int = 0, waiting: int = 0) -> bytes:
    """An event's code as it waits here, how many bytes its arrays have, and which of
    `Buffer.waiting` is for it, from 1."""
    return _CODE.pack(code, waiting, nbytes)


class Slabs:
    """Memory for large arrays, used again once they are written: fresh memory costs more than
    the copy into it."""

    def __init__(self) -> None:
        self._free: list[Array] = []

    def take(self) -> Array:
        """A slab: bytes, with anything in them."""
        if self._free:
            return self._free.pop()
        room = np.empty(_SLAB + _PAGE, "u1")
        begin = -room.ctypes.data % _PAGE
        return room[begin : begin + _SLAB]

    def give(self, slabs: list[Array]) -> None:
        """Slabs that nobody looks at any more."""
        self._free += slabs[: _SPARE - len(self._free)]


Blob = bytes | bytearray | Array | OnDevice
Entry: TypeAlias = tuple[bytes, bytes, bytes, int, "tuple[list[Blob], bytearray] | None"]
"""An event as a buffer takes it: its record, its `code_word`, its arrays joined where they are
small, their bytes, and, where they are large, they themselves with the tail behind them."""


class Buffer:
    """Events, their values and the arrays that these point at.

    Whoever adds an event makes its parts first, and then appends all of them with no call in
    between, so that neither another thread nor a signal's handler comes between them; on one line,
    so that no debugger does. Where an array lies is counted from the first of its event: what comes
    before that one is known when all is written.

    Attributes:
        codes: of each event, its `code_word`.
        records: of each event, what `record_of` packs.
        slots: what an event has of them, by its code; it may grow.
        blobs: the events' arrays, in order; those that are small are joined in bytearrays.
        tail: the last of `blobs`, which small arrays are appended to.
        blob_bytes: of all of them.
        waiting: of events with numbers that are on an accelerator, these; slots count from the
            event's first.
        kept: of the events, those that stay where the others are dropped.
        is_sealed: whether it was handed on, and takes no more.
    """

    def __init__(self, slots: list[fmt.Slots], slabs: Slabs) -> None:
        self.slots = slots
        self.codes, self.records = bytearray(), bytearray()
        self.tail, self.blob_bytes = bytearray(), 0
        self.blobs: list[Blob] = [self.tail]
        self.waiting: list[list[Numbers]] = []
        self.kept: list[Entry] = []
        self.schema = b""
        self.is_sealed = False
        self._slabs, self._taken, self._used = slabs, list[Array](), _SLAB
        self._copying = 0  # how many copies into slabs are under way

    def __len__(self) -> int:
        return len(self.codes) // _CODE.size

    @property
    def nbytes(self) -> int:
        return len(self.records) + len(self.codes) + self.blob_bytes

    @cached_property
    def is_torn(self) -> bool:
        """Whether memory ran out amid an event: what comes after it is not where it should be.
        For a buffer that takes no more."""
        heads = np.frombuffer(self.codes, _CODES)
        words = int(self._lengths(heads["code"]).sum())
        return words * 8 != len(self.records) or int(heads["nbytes"].sum()) != self.blob_bytes

    def following(self) -> "Buffer":
        """An empty one for what comes after."""
        return Buffer(self.slots, self._slabs)

    def emptied(self) -> "Buffer":
        """One in its place without what may be dropped: with the schema, which later events refer
        to, and what is to be kept."""
        empty = self.following()
        empty.schema = self.schema
        for entry in self.kept:
            empty.append(entry, kept=[entry])
        return empty

    def entry(
        self,
        code: int,
        record: bytes,
        blobs: Sequence[Blob] = (),
        nbytes: int = 0,
        *,
        waiting: "Sequence[tuple[int, torch.Tensor]]" = (),
    ) -> Entry:
        """An event to append.

        Args:
            code: its signature, or what kind of mark it is.
            record: its step, time and slots, as `record_of` packs them.
            blobs: its arrays, which are `nbytes` together.
            waiting: which of its slots are for numbers that are on an accelerator.
        """
        group = 0
        if waiting:
            numbers = gathered(waiting)
            self.waiting.append(numbers)
            group = len(self.waiting)
        word = code_word(code, nbytes, group)
        if nbytes < SMALL and all(isinstance(blob, bytes) for blob in blobs):
            return record, word, b"".join(cast("Sequence[bytes]", blobs)), nbytes, None
        tail = bytearray()
        return record, word, b"", nbytes, ([*blobs, tail], tail)

    def append(self, entry: Entry, kept: Sequence[Entry] = ()) -> bool:
        """Add an event; false: the buffer was handed on meanwhile.

        Args:
            entry: the event.
            kept: the event again, where it stays when the others are dropped.
        """
        record, word, small, nbytes, large = entry
        if self.is_sealed:
            return False
        self.kept += kept
        if large is None:
            self.tail += small; self.blob_bytes += nbytes; self.records += record; self.codes += word  # noqa: E501, E702  # fmt: skip
        else:
            blobs, tail = large
            self.blobs += blobs; self.tail = tail; self.blob_bytes += nbytes; self.records += record; self.codes += word  # noqa: E501, E702  # fmt: skip
        return True

    def copied(self, array: Array) -> bytes | Array:
        """A copy of an array, in C order."""
        size = array.nbytes
        if size < SMALL or size > _SLAB:
            return array.tobytes()
        aligned = -(-size // 64) * 64
        self._copying += 1
        if self._used + aligned > _SLAB:
            fresh = self._slabs.take()
            self._taken += [fresh]
            self._used = 0
        # A signal's handler may add too: what follows is taken from here on.
        slab, begin = self._taken[-1], self._used
        self._used = begin + aligned
        room = slab[begin : begin + size]
        room.view(array.dtype).reshape(array.shape)[...] = array
        self._copying -= 1
        return room

    def steps(self) -> tuple[Array, Array]:
        """The events' codes and steps."""
        events, _, _ = self._laid_out(0)
        return events["code"], events["step"]

    def release(self) -> None:
        """The block was written: its memory may be used again, unless this is called by a signal's
        handler amid a copy into it."""
        taken = self._taken
        self._taken, self._used = [], _SLAB
        if not self._copying:
            self._slabs.give(taken)

    def block(self, value_base: int, blob_base: int) -> Block:
        """What to append to a file of so many values and bytes of arrays; what is on an
        accelerator is fetched."""
        events, values, waiting = self._laid_out(blob_base)
        if self.waiting:
            starts, groups = events["start"][waiting > 0], waiting[waiting > 0] - 1
            slots, numbers = fetched_numbers(
                [
                    ([int(start) + slot for slot in slots], tensor)
                    for start, group in zip(starts, groups, strict=True)
                    for slots, tensor in self.waiting[group]
                ]
            )
            values[slots] = numbers
        events["start"] += value_base
        return Block(self.schema, self._fetched(), values, events)

    def _fetched(self) -> list[Array]:
        """All arrays, those from an accelerator too."""
        there = [blob for blob in self.blobs if isinstance(blob, OnDevice)]
        fetched = iter(fetched_arrays(there) if there else ())
        arrays: list[Array] = []
        for blob in self.blobs:
            if isinstance(blob, bytes | bytearray):
                arrays.append(np.frombuffer(blob, "u1"))
            else:
                arrays.append(next(fetched) if isinstance(blob, OnDevice) else blob)
        return arrays

    def _laid_out(self, blob_base: int) -> tuple[Array, Array, Array]:
        """The events and their slots apart, as the file has them, and what waits for each."""
        heads = np.frombuffer(self.codes, _CODES)
        codes = heads["code"]
        words = np.frombuffer(self.records, "<f8")
        events = np.empty(len(codes), fmt.EVENT)
        lengths = self._lengths(codes)
        at = np.cumsum(lengths) - lengths
        events["code"], events["step"], events["time"] = codes, words.view("<i8")[at], words[at + 1]
        events["start"] = at - _TOP_WORDS * np.arange(len(codes))
        are_slots = np.ones(len(words), bool)
        are_slots[at] = are_slots[at + 1] = False
        values = words[are_slots]
        if self.blob_bytes:
            firsts = blob_base + np.cumsum(heads["nbytes"]) - heads["nbytes"]
            for code in np.unique(codes[heads["nbytes"] > 0]):
                which = codes == code
                pointers = events["start"][which, None] + self.slots[code].pointers
                values[pointers] += firsts[which, None]
        return events, values, heads["waiting"]

    def _lengths(self, codes: Array) -> Array:
        """Of the events' records, in words."""
        totals = np.array([*(slots.total for slots in self.slots), fmt.MARK_SLOTS])
        lengths: Array = totals[np.maximum(codes, -1)] + _TOP_WORDS  # of marks, the last
        return lengths


class Draft:
    """The slots and arrays of one event, before it counts: what fails half way leaves nothing.

    Args:
        buffer: where it will be appended.
    """

    def __init__(self, buffer: Buffer) -> None:
        self.slots: list[float] = []
        self.blobs: list[Blob] = []
        self.nbytes = 0
        self.waiting: list[tuple[int, torch.Tensor]] = []
        self._buffer = buffer

    def put(self, part: Part | OnDevice) -> None:
        """Take in a normalised part; a tensor on an accelerator is not fetched."""
        if isinstance(part, float):
            self.slots.append(part)
        elif isinstance(part, OnDevice) and not part.shape:
            self.waiting.append((len(self.slots), part.tensor))
            self.slots.append(0.0)
        else:
            if isinstance(part, str):
                part = np.frombuffer(part.encode("utf-8", "surrogatepass"), "u1")
            self.slots.append(self.nbytes)
            self.slots += part.shape
            self.nbytes += part.nbytes
            if isinstance(part, OnDevice):
                self.blobs.append(part)
            else:
                self.blobs.append(self._buffer.copied(part))

    def entry(self, code: int, step: int, time: float) -> Entry:
        """The event, for the buffer to append."""
        record = record_of(len(self.slots)).pack(step, time, *self.slots)
        return self._buffer.entry(code, record, self.blobs, self.nbytes, waiting=self.waiting)
