"""The records of a live file's journal: what they say, and how they prove themselves.

`docs/format.md` specifies them. Nothing here reads or writes a file: writing/journal_writer.py and
journal_reader.py do.
"""

import struct
from collections.abc import Iterable

import numpy as np

from flexrec.recorder.events import Array
from flexrec.recorder.storage import format as fmt

try:  # the same CRC-32, 5 to 15 times as quick; nobody needs it to read
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32


BLOCK, PLACE, NEXT = 1, 2, 3  # kinds
EXTENT = 1024  # records that lie end to end; the last of them says where the next such run begins

RECORD = np.dtype(
    [
        ("checksum", "<u4"),  # of all that follows, begun with the journal's id and the number
        ("kind", "u1"),
        ("dataset", "u1"),  # of a PLACE, its place in format.LIVE_LAYOUT
        ("zero", "<u2"),
        ("numbers", "<i8", (len(fmt.LIVE_LAYOUT),)),  # BLOCK: lengths; PLACE: chunk, address;
        ("checksums", "<u4", (len(fmt.LIVE_LAYOUT),)),  # NEXT: address. BLOCK: of what it added
        ("synced", "<i8"),  # BLOCK: how many records were on the disk when it was written
    ]
)
_HEAD, _SEED = struct.Struct("<I"), struct.Struct("<QQ")
_BLOCK, _PAIR = struct.Struct("<BBH4q4Iq"), struct.Struct("<BBHqq40x")


def checksum(data: Array | memoryview | bytes, begun: int = 0) -> int:
    """CRC-32 of bytes, going on from that of those before them."""
    return int(crc32(data, begun))


def block_record(lengths: Iterable[int], checksums: Iterable[int], synced: int) -> bytes:
    """What a BLOCK says: how long the datasets are now, and the checksums of what was added."""
    return _BLOCK.pack(BLOCK, 0, 0, *lengths, *checksums, synced)


def place_record(dataset: int, chunk: int, address: int) -> bytes:
    """What a PLACE says: where in the file a chunk of a dataset lies."""
    return _PAIR.pack(PLACE, dataset, 0, chunk, address)


def next_record(address: int) -> bytes:
    """What a NEXT says: where in the file the next extent lies."""
    return _PAIR.pack(NEXT, 0, 0, address, 0)


def sealed(identity: int, number: int, body: bytes) -> bytes:
    """The record of that number: its checksum, and what it says.

    The journal's id and the record's number are part of the checksum, so that neither zeros, nor a
    stale record, nor one of another file passes for it.
    """
    return _HEAD.pack(crc32(body, crc32(_SEED.pack(identity, number)))) + body


def is_intact(record: bytes | memoryview, identity: int, number: int) -> bool:
    """Whether bytes are a record of that number, as it was written."""
    found = crc32(record[_HEAD.size :], crc32(_SEED.pack(identity, number)))
    return bool(found == int.from_bytes(record[: _HEAD.size], "little"))
