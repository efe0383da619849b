"""The records of a live file's journal: their contents and checksums.

`docs/format.md` specifies them. This module reads and writes no files; writing/journal_writer.py
and reader.py do.
"""

import struct
from collections.abc import Iterable

import numpy as np

from flexrec.recorder.events import Array
from flexrec.recorder.storage import format as fmt

try:  # the same CRC-32, 5 to 15 times as fast; not needed for reading
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32


BLOCK, PLACE, NEXT = 1, 2, 3  # kinds
EXTENT = 1024  # contiguous records; the last of them has the address of the next extent

RECORD = np.dtype(
    [
        ("checksum", "<u4"),  # of the fields below, seeded with the journal's id and the number
        ("kind", "u1"),
        ("dataset", "u1"),  # of a PLACE, its index in format.LIVE_LAYOUT
        ("zero", "<u2"),
        ("numbers", "<i8", (len(fmt.LIVE_LAYOUT),)),  # BLOCK: lengths; PLACE: chunk, address;
        ("checksums", "<u4", (len(fmt.LIVE_LAYOUT),)),  # NEXT: address. BLOCK: of the added data
        ("synced", "<i8"),  # BLOCK: the number of records on disk when it was written
    ]
)
_HEAD, _SEED = struct.Struct("<I"), struct.Struct("<QQ")
_BLOCK, _PAIR = struct.Struct("<BBH4q4Iq"), struct.Struct("<BBHqq40x")


def checksum(data: Array | memoryview | bytes, begun: int = 0) -> int:
    """The CRC-32 of bytes, continuing from that of preceding bytes."""
    return int(crc32(data, begun))


def block_record(lengths: Iterable[int], checksums: Iterable[int], synced: int) -> bytes:
    """The contents of a BLOCK: the datasets' new lengths, and checksums of the added data."""
    return _BLOCK.pack(BLOCK, 0, 0, *lengths, *checksums, synced)


def place_record(dataset: int, chunk: int, address: int) -> bytes:
    """The contents of a PLACE: the address of a dataset's chunk."""
    return _PAIR.pack(PLACE, dataset, 0, chunk, address)


def next_record(address: int) -> bytes:
    """The contents of a NEXT: the address of the next extent."""
    return _PAIR.pack(NEXT, 0, 0, address, 0)


def sealed(identity: int, number: int, body: bytes) -> bytes:
    """A complete record: its checksum and its contents.

    The checksum covers the journal's id and the record's number, so zeros, a stale record or a
    record of another file are never mistaken for it.
    """
    return _HEAD.pack(crc32(body, crc32(_SEED.pack(identity, number)))) + body


def is_intact(record: bytes | memoryview, identity: int, number: int) -> bool:
    """Whether bytes are the undamaged record of that number."""
    found = crc32(record[_HEAD.size :], crc32(_SEED.pack(identity, number)))
    return bool(found == int.from_bytes(record[: _HEAD.size], "little"))
