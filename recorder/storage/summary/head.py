"""Where a summary is in a file, and whether it is as it was written. No numpy, no HDF5.

A summary is a JSON object that begins with a member of fixed size, the head:

    {"flexrec_summary":[1,"CRC-32","length","end of file"],"state":"closed",…}
"""

import json
import os
import stat
from pathlib import Path
from typing import Any
from zlib import crc32

from flexrec.recorder.files.descriptors import open_binary, read_at
from flexrec.recorder.hdf5.superblock import SIZE, Superblock

MOST = 1 << 16
"""The most bytes of a summary that flexrec writes."""

_BEGIN = b'{"flexrec_summary":[1,"'
_CHECKED = len(_BEGIN) + 10  # where that begins which the CRC-32 is of
_NUMBERS = b'"%010d","%020d"],'
_FULL = _CHECKED + len(_NUMBERS % (0, 0))
_LIVE = 0  # instead of the end of the file
_AT_ONCE, _ALLOWED = 8192, 1 << 20  # bytes: read at first; of a summary that is read at all


def sealed(body: bytes, end: int) -> bytes:
    """A summary's bytes.

    Args:
        body: a JSON object that is not empty.
        end: the length of a closed file according to its superblock, so that a file that another
            program has changed can be told; 0 for a live file, which grows. The number of bytes
            does not depend on it.
    """
    checked = _NUMBERS % (len(body) - 1, end) + body[1:]
    return _BEGIN + b'%08x",' % crc32(checked) + checked


def put(path: Path, offset: int, body: bytes) -> None:
    """Write a summary into a file that HDF5 has closed, at the place of its dataset."""
    with path.open("r+b") as file:
        block = Superblock.parse(file.read(SIZE))
        file.seek(offset)
        file.write(sealed(body, block.end if block else 0))


def glance(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The summary of a recording, without the head, in one read.

    That of a live file says how the run began. None if the file has none, or if it is not as it
    was written; opening the file tells more. What the summary says may still be wrong: whoever
    wrote the file could write anything.

    Raises:
        OSError: the file cannot be read.
    """
    # A pipe must not be waited for.
    descriptor = open_binary(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        start = read_at(descriptor, _AT_ONCE, 0)
        at = start.find(_BEGIN, SIZE)
        if at < 0:
            return None
        checksum, length, end = _numbers(start[at : at + _FULL])
        if end != _LIVE and not _is_closed(start, end, status.st_size):
            return None
        if not 0 < length <= min(_ALLOWED, status.st_size):
            return None
        body = start[at + _FULL : at + _FULL + length]
        if len(body) < length:
            body += read_at(descriptor, length - len(body), at + _FULL + len(body))
        if crc32(start[at + _CHECKED : at + _FULL] + body) != checksum:
            return None
        found = json.loads(b"{" + body)
    except (ValueError, RecursionError):
        return None
    finally:
        os.close(descriptor)
    is_live = isinstance(found, dict) and found.get("state") == "live"
    return found if isinstance(found, dict) and is_live == (end == _LIVE) else None


def _is_closed(start: bytes, end: int, size: int) -> bool:
    """Whether a file is as it was when a recorder closed it, by its superblock."""
    block = Superblock.parse(start)
    return block is not None and not block.flags and block.sound and block.end == end <= size


def _numbers(head: bytes) -> tuple[int, int, int]:
    """The CRC-32, the length and the end of file in a head; ValueError if they are not there."""
    checksum = int(head[len(_BEGIN) : len(_BEGIN) + 8], 16)
    length, end = head[_CHECKED + 1 : _CHECKED + 11], head[_CHECKED + 14 : _CHECKED + 34]
    return checksum, int(length), int(end)
