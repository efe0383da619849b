"""Read HDF5 without HDF5: pyfive, and the indexes of chunks that it does not know.

pyfive 1.3 reads groups, attributes, types and filters in Python. Of chunked datasets it knows
those of HDF5 1.8; here are the two indexes of newer files whose datasets do not grow, as the
format's specification has them: a single chunk, and a fixed array.
"""

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import pyfive
from pyfive.dataobjects import DataObjects
from pyfive.h5d import DatasetID, StoreInfo

__all__ = ["opened"]

_LAYOUT, _CHUNKED, _VERSION = 8, 2, 4  # the message, its class, and its version
_SINGLE, _FIXED_ARRAY = 1, 3
_FILTERED = 2  # a flag of a single chunk
_UNDEFINED = (1 << 64) - 1


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file, to read with pyfive."""
    with (
        mock.patch.object(DataObjects, "_get_chunk_params", _chunk_params),
        mock.patch.object(DatasetID, "_build_index", _build_index),
        pyfive.File(path) as file,
    ):
        yield file


def _chunk_params(self: Any) -> None:
    """What pyfive wants to know of a dataset's chunks; their index in place of its address."""
    if self._chunk_params_set:
        return
    self._chunk_params_set = True
    at = self.find_msg_type(_LAYOUT)[0]["offset_to_message"]
    version, kind, flags, rank, width = struct.unpack_from("<5B", self.msg_data, at)
    if kind != _CHUNKED:
        return
    assert version == _VERSION
    at += 5
    sizes = self.msg_data[at : at + rank * width]
    *chunk, element = (
        int.from_bytes(sizes[i : i + width], "little") for i in range(0, len(sizes), width)
    )
    self._chunks, self._chunk_dims = tuple(chunk), rank
    places = _places(self, at + rank * width, flags, math.prod(chunk) * element)
    starts = product(*(range(0, most, step) for most, step in zip(self.shape, chunk, strict=True)))
    self._chunk_address = {
        start: StoreInfo(start, mask, address, size)
        for start, (address, size, mask) in zip(starts, places, strict=True)
        if address != _UNDEFINED
    }


def _places(found: Any, at: int, flags: int, nbytes: int) -> Iterator[tuple[int, int, int]]:
    """The address, the stored size and the filter mask of each chunk."""
    kind = found.msg_data[at]
    if kind == _SINGLE and flags & _FILTERED:
        size, mask, address = struct.unpack_from("<QIQ", found.msg_data, at + 1)
        yield address, size, mask
    elif kind == _SINGLE:
        yield struct.unpack_from("<Q", found.msg_data, at + 1)[0], nbytes, 0
    else:
        assert kind == _FIXED_ARRAY, f"an index of kind {kind}"
        (address,) = struct.unpack_from("<Q", found.msg_data, at + 2)
        if address != _UNDEFINED:
            yield from _fixed_array(found.fh, address, nbytes)


def _fixed_array(file: Any, header: int, nbytes: int) -> Iterator[tuple[int, int, int]]:
    signature, _, is_filtered, width, bits, count, block = struct.unpack(
        "<4s4BQQ", _read(file, header, 24)
    )
    assert signature == b"FAHD"
    at, page = block + 14, 1 << bits
    assert _read(file, block, 4) == b"FADB"
    if count > page:  # in pages, after a bit for each and a checksum; each has a checksum too
        at += math.ceil(math.ceil(count / page) / 8) + 4
    for first in range(0, count, page):
        some = min(page, count - first)
        data = _read(file, at, some * width)
        at += some * width + 4
        for i in range(0, len(data), width):
            one = data[i : i + width]
            address = int.from_bytes(one[:8], "little")
            if is_filtered:
                size, mask = (int.from_bytes(part, "little") for part in (one[8:-4], one[-4:]))
                yield address, size, mask
            else:
                yield address, nbytes, 0


def _read(file: Any, offset: int, size: int) -> bytes:
    file.seek(offset)
    data: bytes = file.read(size)
    return data


def _build_index(self: Any) -> None:
    """Take the index that `_chunk_params` found."""
    self._index = self._index_params.chunk_address
    self._nthindex = list(self._index)
    self._DatasetID__index_built = True
