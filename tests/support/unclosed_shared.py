""""""

import struct

from flexrec.recorder.hdf5.superblock import SIZE, lookup3

_FLAGS, _END = 11, 28


def with_flags(data: bytes, flags: int, end: int | None = None) -> bytes:
    """A file's bytes, which say so of being open for writing, and of its end."""
    head = bytearray(data[:SIZE])
    head[_FLAGS] = flags
    if end is not None:
        struct.pack_into("<Q", head, _END, end)
    struct.pack_into("<I", head, SIZE - 4, lookup3(bytes(head[:-4])))
    return bytes(head) + data[SIZE:]
