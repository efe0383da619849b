"""The superblock (first 48 bytes) of an HDF5 file, and opening files that were not closed.

A killed writer leaves a superblock that says "being written" and has too early an end of file.
HDF5 opens such a file only in SWMR mode, where a torn structure makes it retry for minutes. A
loss of power may leave a closed file in the same state. `UnclosedFile` presents such a file to
HDF5 as closed, so that a torn structure raises an error at once.
"""

import io
import os
import struct
from typing import NamedTuple

from flexrec.recorder.files.descriptors import read_at, read_into

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SIZE = 48
_FLAGS, _END, _CHECKSUM = 11, 28, 44  # offsets
_ALL_FLAGS = (0, 1, 4, 5)  # that HDF5 writes: closed, or being written, in SWMR mode or not
_UNDEFINED = 2**64 - 1
_FAR = 1 << 60  # the end of file presented to HDF5, beyond any address
_BEYOND = 1 << 20  # the farthest that HDF5 reads ahead
_WORD = 0xFFFFFFFF


class Superblock(NamedTuple):
    """A superblock of version 3, with 8-byte addresses and lengths, as `libver="v110"` writes it.

    Attributes:
        flags: not 0 while a writer has the file open, and after it was killed.
        end: the end of the file, as far as it was noted.
        sound: whether the fields have the usual values, and the checksum matches them, or did
            with other flags: a write that failed half-way changes only these, which come first.
    """

    flags: int
    end: int
    sound: bool

    @classmethod
    def parse(cls, head: bytes) -> "Superblock | None":
        """Parse a file's first bytes; None if they are not such a superblock."""
        if len(head) < SIZE or not head.startswith(SIGNATURE) or head[8:11] != b"\x03\x08\x08":
            return None
        base, extension, end, _ = struct.unpack_from("<QQQQ", head, 12)
        (checksum,) = struct.unpack_from("<I", head, _CHECKSUM)
        sound = (
            base == 0
            and extension == _UNDEFINED
            and any(
                checksum == lookup3(head[:_FLAGS] + bytes([flags]) + head[_FLAGS + 1 : _CHECKSUM])
                for flags in (head[_FLAGS], *_ALL_FLAGS)
            )
        )
        return cls(head[_FLAGS], end, sound)


class UnclosedFile(io.RawIOBase):
    """A file object for `h5py.File` whose superblock reads like that of a closed file.

    HDF5 does not lock it, and does not relate it to a file that it opened by its path. The file
    may grow meanwhile: a short range beyond its current end reads as zeros.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._position = descriptor, 0
        head = bytearray(read_at(descriptor, SIZE, 0))
        head[_FLAGS] = 0
        struct.pack_into("<Q", head, _END, _FAR)
        struct.pack_into("<I", head, _CHECKSUM, lookup3(bytes(head[:_CHECKSUM])))
        self._head = bytes(head)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position; the end of the file is at a large fixed offset."""
        start = (0, self._position, _FAR)[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """The current position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the whole buffer."""
        size, start = len(buffer), self._position
        is_far = start > _FAR  # in damaged files; the system takes no number above 2**63
        count = 0 if is_far else read_into(self._descriptor, buffer, start)
        if is_far or size - count > _BEYOND:
            raise OSError(f"{size} bytes at {start} are not in the file")
        if count < size:
            buffer[count:] = bytes(size - count)
        if start < SIZE:
            head = self._head[start : start + size]
            buffer[: len(head)] = head
        self._position += size
        return size


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash `hashlittle`, seeded with 0: the checksum of HDF5's structures.

    Its source: burtleburtle.net/bob/c/lookup3.c (public domain).
    """
    a = b = c = (0xDEADBEEF + len(data)) & _WORD
    start = 0
    while len(data) - start > 12:
        a, b, c = _added((a, b, c), data[start : start + 12])
        for turn in (4, 6, 8, 16, 19, 4):
            # Each round applies the same steps to the three words in turn.
            a = ((a - c) & _WORD) ^ _rotated(c, turn)
            c = (c + b) & _WORD
            a, b, c = b, c, a
        start += 12
    if start == len(data):
        return c
    a, b, c = _added((a, b, c), data[start:].ljust(12, b"\0"))
    for turn in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotated(b, turn)) & _WORD
        a, b, c = b, c, a
    # After seven rounds the words are rotated by one place.
    return b


def _added(words: tuple[int, int, int], data: bytes) -> tuple[int, int, int]:
    x, y, z = struct.unpack("<III", data)
    return (words[0] + x) & _WORD, (words[1] + y) & _WORD, (words[2] + z) & _WORD


def _rotated(word: int, turn: int) -> int:
    return ((word << turn) | (word >> (32 - turn))) & _WORD
