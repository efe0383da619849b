"""Open files as bytes, read them at an offset, and sync them, on every system.

Windows opens files in text mode unless told otherwise, and cannot read at an offset without moving
the position of the file. macOS syncs to the drive's own cache unless told otherwise.
"""

import io
import os
import sys
import threading

if sys.platform != "win32":
    import fcntl

SPECIAL_UNTOUCHED = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags that follow no link, and do not wait for the other end of a pipe; Windows has neither."""

_BINARY = getattr(os, "O_BINARY", 0)
_moving = threading.Lock()


def open_binary(path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """`os.open`, but never in text mode; the descriptor is not inherited."""
    return os.open(path, flags | _BINARY, mode)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """At most `size` bytes of a file at an offset; several threads may read at once."""
    if sys.platform == "win32":
        data = bytearray(size)
        return bytes(data[: read_into(descriptor, memoryview(data), offset)])
    return os.pread(descriptor, size, offset)


def read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read a file at an offset into a buffer; return the number of bytes read."""
    if sys.platform == "win32":
        with _moving, io.FileIO(descriptor, closefd=False) as file:
            file.seek(offset)
            return file.readinto(buffer)
    return os.preadv(descriptor, [buffer], offset)


def sync(descriptor: int) -> None:
    """Write a file's data to the disk, to survive a loss of power.

    Raises:
        OSError: it cannot be written.
    """
    if sys.platform == "darwin":  # os.fsync leaves the data in the drive's cache
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError:  # a file system that has only fsync
            os.fsync(descriptor)
    else:
        os.fsync(descriptor)
