"""The first 48 bytes of an HDF5 file, and files as they are although those bytes say otherwise.

A killed writer leaves a superblock that says "being written" and an end of file that is too early.
HDF5 opens such a file in its SWMR mode alone, where a torn structure makes it retry for minutes.
A loss of power may leave the same of a closed file. `UnclosedFile` shows HDF5 any of them as
closed: what is torn is then an error at once.
"""

import io
import os
import struct
from typing import NamedTuple

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SIZE = 48
_FLAGS, _END, _CHECKSUM = 11, 28, 44  # where they stand
_UNDEFINED = 2**64 - 1
_FAR = 1 << 60  # the end of file that HDF5 is told: addresses may lie anywhere below
_BEYOND = 1 << 20  # HDF5 reads ahead so far at most
_WORD = 0xFFFFFFFF


class Superblock(NamedTuple):
    """A superblock of version 3, with 8-byte addresses and lengths, as `libver="v110"` writes it.

    Attributes:
        flags: not 0 while a writer has the file open, and after it was killed.
        end: where the file ends, as far as it was noted.
        sound: whether the checksum fits, and nothing unusual is said.
    """

    flags: int
    end: int
    sound: bool

    @classmethod
    def parse(cls, head: bytes) -> "Superblock | None":
        """Read a file's first bytes; None for what is no such superblock."""
        if len(head) < SIZE or not head.startswith(SIGNATURE) or head[8:11] != b"\x03\x08\x08":
            return None
        base, extension, end, _ = struct.unpack_from("<QQQQ", head, 12)
        (checksum,) = struct.unpack_from("<I", head, _CHECKSUM)
        sound = checksum == lookup3(head[:_CHECKSUM]) and base == 0 and extension == _UNDEFINED
        return cls(head[_FLAGS], end, sound)


class UnclosedFile(io.RawIOBase):
    """An open file for `h5py.File` to read, its superblock shown as that of a closed file.

    HDF5 locks no such file, and does not know it from another that it has open by its path.

    It may grow meanwhile: beyond its present end it reads as zeros, for a little.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._position = descriptor, 0
        head = bytearray(os.pread(descriptor, SIZE, 0))
        head[_FLAGS] = 0
        struct.pack_into("<Q", head, _END, _FAR)
        struct.pack_into("<I", head, _CHECKSUM, lookup3(bytes(head[:_CHECKSUM])))
        self._head = bytes(head)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, as in any file; the end is far away."""
        start = (0, self._position, _FAR)[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Where it stands."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the whole buffer."""
        size, start = len(buffer), self._position
        count = os.preadv(self._descriptor, [buffer], start)
        if size - count > _BEYOND:
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
            # Each round does the same to the three words in turn.
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
    # After seven rounds the words stand one place further.
    return b


def _added(words: tuple[int, int, int], data: bytes) -> tuple[int, int, int]:
    x, y, z = struct.unpack("<III", data)
    return (words[0] + x) & _WORD, (words[1] + y) & _WORD, (words[2] + z) & _WORD


def _rotated(word: int, turn: int) -> int:
    return ((word << turn) | (word >> (32 - turn))) & _WORD
