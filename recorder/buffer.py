"""Events on their way from `add` to the file, in the bytes that they will have there."""

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, cast

import numpy as np

from flexrec.recorder import format as fmt
from flexrec.recorder.events import Array, Part
from flexrec.recorder.on_device import Numbers, OnDevice, fetched_arrays, fetched_numbers, gathered
from flexrec.recorder.writer import SMALL, Block

if TYPE_CHECKING:
    import torch

__all__ = ["Buffer", "Draft", "Slabs", "code_word", "record_of"]

_SLAB = 8 << 20  # bytes of memory that large arrays are copied to
_SPARE = 4  # slabs that are kept for later
_WORD = 8  # bytes of a slot, a step, a time and a code
_TOP = 2  # words of a record that come before its slots


def record_of(slots: int) -> struct.Struct:
    """An event of so many slots, as it waits here: step, time, slots."""
    return struct.Struct(f"<qd{slots}d")


def code_word(code: int) -> bytes:
    """An event's code as it waits here."""
    return code.to_bytes(_WORD, "little", signed=True)


class Slabs:
    """Memory for large arrays, used again once they are written: fresh memory costs more than
    the copy into it."""

    def __init__(self) -> None:
        self._free: list[Array] = []

    def take(self) -> Array:
        """A slab: bytes, with anything in them."""
        return self._free.pop() if self._free else np.empty(_SLAB, "u1")

    def give(self, slabs: list[Array]) -> None:
        """Slabs that nobody looks at any more."""
        self._free += slabs[: _SPARE - len(self._free)]


Blob = bytes | Array | OnDevice


class Buffer:
    """Events, their values and the arrays that these point at.

    Whoever adds an event makes its parts first, and then appends record and code with no call in
    between, so that not even Ctrl-C comes between them.

    Attributes:
        codes: of each event, its `code_word`.
        records: of each event, what `record_of` packs.
        slots: how many slots an event has, by its code; it may grow.
    """

    def __init__(self, value_base: int, blob_base: int, slots: list[int], slabs: Slabs) -> None:
        self.value_base, self.blob_base, self.slots = value_base, blob_base, slots
        self.codes, self.records = bytearray(), bytearray()
        self.blobs: list[Blob] = []
        self.blob_bytes = 0
        self.waiting: list[Numbers] = []  # their slots count from this buffer's first
        self.schema = b""
        self._slabs, self._taken, self._used = slabs, list[Array](), _SLAB

    def __len__(self) -> int:
        return len(self.codes) // _WORD

    @property
    def value_count(self) -> int:
        """How many slots its events have."""
        return len(self.records) // _WORD - _TOP * len(self)

    @property
    def nbytes(self) -> int:
        return len(self.records) + len(self.codes) + self.blob_bytes

    @property
    def blob_end(self) -> int:
        """Where the next array will lie."""
        return self.blob_base + self.blob_bytes

    def following(self) -> "Buffer":
        """An empty one for what comes after."""
        return Buffer(self.value_base + self.value_count, self.blob_end, self.slots, self._slabs)

    def emptied(self) -> "Buffer":
        """An empty one in its place, with the schema, which later events refer to."""
        empty = Buffer(self.value_base, self.blob_base, self.slots, self._slabs)
        empty.schema = self.schema
        return empty

    def append(
        self,
        word: bytes,
        record: bytes,
        blobs: Sequence[Blob] = (),
        nbytes: int = 0,
        *,
        waiting: "Sequence[tuple[int, torch.Tensor]]" = (),
    ) -> None:
        """Add an event.

        Args:
            word: its code: its signature, or what kind of mark it is.
            record: its step, time and slots, as `record_of` packs them.
            blobs: its arrays, which are `nbytes` together.
            waiting: which of its slots are for numbers that are on an accelerator.
        """
        if waiting:
            base = self.value_count
            self.waiting += gathered([(base + slot, tensor) for slot, tensor in waiting])
        self.blobs += blobs
        self.blob_bytes += nbytes
        self.records += record
        self.codes += word

    def copies(self, arrays: Sequence[Array], nbytes: int) -> list[Blob]:
        """Copies of arrays, in C order: `nbytes` in all."""
        if nbytes < SMALL:
            try:
                return [b"".join(cast("Sequence[bytes]", arrays))]  # one copy for all
            except (TypeError, BufferError):  # not contiguous
                return [array.tobytes() for array in arrays]
        return [
            array.tobytes() if array.nbytes < SMALL or array.nbytes > _SLAB else self._copied(array)
            for array in arrays
        ]

    def _copied(self, array: Array) -> Array:
        size = array.nbytes
        if self._used + size > _SLAB:
            self._taken.append(self._slabs.take())
            self._used = 0
        room = self._taken[-1][self._used : self._used + size]
        room.view(array.dtype).reshape(array.shape)[...] = array
        self._used += -(-size // 64) * 64  # what follows is aligned
        return room

    def release(self) -> None:
        """The block was written: its memory may be used again."""
        self._slabs.give(self._taken)
        self._taken = []

    def block(self) -> Block:
        """What to append to the file; what is still on an accelerator is fetched here."""
        events, values = self._laid_out()
        if self.waiting:
            slots, numbers = fetched_numbers(self.waiting)
            values[slots] = numbers
        return Block(self.schema, self._joined(), values, events)

    def _joined(self) -> list[Array]:
        """The bytes of all arrays: those from an accelerator fetched, small neighbours together."""
        there = [blob for blob in self.blobs if isinstance(blob, OnDevice)]
        fetched = iter(fetched_arrays(there) if there else ())
        joined: list[Array] = []
        for is_small, some in groupby(self.blobs, _is_small):
            if is_small:
                joined.append(np.frombuffer(b"".join(cast("Iterator[bytes]", some)), "u1"))
                continue
            for blob in some:
                if isinstance(blob, bytes):
                    joined.append(np.frombuffer(blob, "u1"))
                else:
                    joined.append(next(fetched) if isinstance(blob, OnDevice) else blob)
        return joined

    def _laid_out(self) -> tuple[Array, Array]:
        """The events and their slots apart, as the file has them."""
        codes = np.frombuffer(self.codes, "<i8")
        words = np.frombuffer(self.records, "<f8")
        events = np.empty(len(codes), fmt.EVENT)
        sizes = np.array([*self.slots, fmt.MARK_SLOTS])[np.maximum(codes, -1)]  # of marks, the last
        ends = np.cumsum(sizes + _TOP)
        at = ends - sizes - _TOP
        events["code"], events["step"], events["time"] = codes, words.view("<i8")[at], words[at + 1]
        events["start"] = self.value_base + at - _TOP * np.arange(len(codes))
        are_slots = np.ones(len(words), bool)
        are_slots[at] = are_slots[at + 1] = False
        return events, words[are_slots]


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
            self.slots.append(self._buffer.blob_end + self.nbytes)
            self.slots += part.shape
            self.nbytes += part.nbytes
            if isinstance(part, OnDevice):
                self.blobs.append(part)
            else:
                self.blobs += self._buffer.copies([part], part.nbytes)

    def record(self, step: int, time: float) -> bytes:
        """The event as it waits in a buffer."""
        return record_of(len(self.slots)).pack(step, time, *self.slots)


def _is_small(blob: Blob) -> bool:
    """Whether it is worth joining with its neighbours before it is written."""
    return isinstance(blob, bytes) and len(blob) < SMALL
