"""Write the journal of a live file: where each chunk lies, and what each block added.

HDF5 rewrites its own structures in place, so a loss of power may tear them. The journal is only
appended to, and its first address never changes, so all data can be found through it.
"""

import os
import secrets
from collections.abc import Iterable
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5d, h5p

from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.journal.records import (
    EXTENT,
    RECORD,
    block_record,
    next_record,
    place_record,
    sealed,
)


class Slot(NamedTuple):
    """Where a record goes: its number, and the address of the extent that it is in."""

    number: int
    extent: int


class JournalWriter:
    """Appends records to the journal of a file that is not in SWMR mode yet.

    Attributes:
        start: where the first record goes.
        synced: the number of records known to be on disk; the next block's record stores it.
    """

    def __init__(self, file: h5py.File) -> None:
        early = h5p.create(h5p.DATASET_CREATE)
        early.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        self._id: Any = file.create_dataset(
            fmt.JOURNAL,
            (EXTENT,),
            np.dtype(f"V{RECORD.itemsize}"),
            chunks=(EXTENT,),
            maxshape=(None,),
            fill_time="never",
            dcpl=early,
        ).id
        self._room = EXTENT
        self._identity = secrets.randbits(63)
        self.start, self.synced = Slot(0, self._address(0)), 0
        file.attrs[fmt.ATTR_JOURNAL] = self.start.extent
        file.attrs[fmt.ATTR_JOURNAL_ID] = self._identity
        self._descriptor: int = file.id.get_vfd_handle()

    def write(
        self,
        slot: Slot,
        places: Iterable[tuple[int, int, int]],
        lengths: Iterable[int],
        checksums: Iterable[int],
    ) -> Slot:
        """Append the records of a block that is in the file.

        Args:
            slot: where the first of them goes.
            places: the dataset, number and address of each new chunk.
            lengths, checksums: those of each dataset, as in journal.block_record.

        Returns:
            Where the next record goes.
        """
        bodies = [place_record(*place) for place in places]
        bodies.append(block_record(lengths, checksums, self.synced))
        (number, extent), run = slot, b""
        begin = self._at(slot)
        for body in bodies:
            if number % EXTENT == EXTENT - 1:
                following = self._address(number + 1)
                run += sealed(self._identity, number, next_record(following))
                write_all(self._descriptor, run, begin)
                number, extent, run = number + 1, following, b""
                begin = self._at(Slot(number, extent))
            run += sealed(self._identity, number, body)
            number += 1
        write_all(self._descriptor, run, begin)
        return Slot(number, extent)

    def close(self) -> None:
        """Close the journal's h5py object."""
        self._id = None

    def _at(self, slot: Slot) -> int:
        return slot.extent + slot.number % EXTENT * RECORD.itemsize

    def _address(self, number: int) -> int:
        """The address of the extent that begins with the record `number`."""
        if self._room <= number:
            self._id.set_extent((number + EXTENT,))
            self._room = number + EXTENT
        address: int = self._id.get_chunk_info_by_coord((number,)).byte_offset
        return address


def write_all(descriptor: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of the bytes at an offset of the file."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
