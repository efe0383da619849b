"""Compress a chunk as HDF5's filters do: shuffle, then deflate. This module uses no files.

Shuffling puts the first bytes of all elements first, then all second bytes, …. These lanes differ:
in noisy data the last bytes cannot be compressed, and the exponents only by Huffman coding, while
repetitive lanes can by LZ77. zlib tries byte by byte, which is slow; here the method is chosen per
lane. The result is a valid zlib stream.

This replaces zlib.compress to close recordings faster: for large chunks it takes 0.3 to 1.0 of
zlib's time and 0.8 to 1.0 of its bytes (noise: 0.33 and 0.97; activations: 0.73 and 0.83).
"""

import struct
import zlib

import numpy as np

from flexrec.recorder.events import Array

_MANY = 1 << 13  # fewest elements for which lanes are examined
_BLOCK, _BLOCKS = 64, 8  # fewest elements and most lanes for which each lane gets a block
_LOOK, _TRY = 1 << 15, 1 << 14  # most bytes of a lane that are counted, and that are tried
_CODE_BYTES = 80  # approximate size of a stored Huffman code
_REPEATS = 0.3  # LZ77 is used for a lane that it shrinks below this fraction of its size
_WORTH = 0.998  # a lane that shrinks to no less than this fraction is stored uncompressed
_STORED = (1 << 16) - 1  # most bytes of deflate's uncompressed blocks
_STORED_HEAD = struct.Struct("<BHH")
_EMPTY = _STORED_HEAD.pack(0, 0, _STORED)  # an empty uncompressed block
_HEAD, _END = b"\x78\x01", b"\x01\x00\x00\xff\xff"  # zlib's header; an empty last block


def deflated(rows: Array, least: int = 0) -> bytes:
    """Compress rows, (n, …) of any dtype, to a zlib stream of at least `least` bytes."""
    found = _deflated(rows)
    missing = max(least - len(found), 0)
    return found[:2] + _EMPTY * -(-missing // len(_EMPTY)) + found[2:] if missing else found


def stored(rows: Array, least: int = 0) -> bytes:
    """A zlib stream of the rows without compression, which is fast; it is larger than `least`."""
    del least
    return _stored(_lanes(rows)[0])


def _lanes(rows: Array) -> tuple[list[bytes], Array]:
    """Each lane's bytes, and the elements' (n, itemsize)."""
    itemsize = rows.dtype.itemsize
    elements = rows.reshape(-1).view(np.uint8).reshape(-1, itemsize)
    return [elements[:, i].tobytes() for i in range(itemsize)], elements


def _deflated(rows: Array) -> bytes:
    itemsize = rows.dtype.itemsize
    lanes, elements = _lanes(rows)
    if len(elements) < _MANY:
        is_apart = len(elements) >= _BLOCK and itemsize <= _BLOCKS
        together = _together(lanes) if is_apart else zlib.compress(b"".join(lanes), 1)
        return together if len(together) <= rows.nbytes else min(together, _stored(lanes), key=len)
    streams = {how: _stream(how) for how in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)}
    found, checksum = [_HEAD], 1
    for lane in lanes:
        checksum = zlib.adler32(lane, checksum)
        how = _strategy(lane)
        if how is None:
            found += _as_it_is(lane)
        else:
            # A full flush, so that later data does not refer to earlier data.
            found += streams[how].compress(lane), streams[how].flush(zlib.Z_FULL_FLUSH)
    return b"".join((*found, _END, checksum.to_bytes(4, "big")))


def _together(lanes: list[bytes]) -> bytes:
    """Compress the lanes with one zlib compressor, each in deflate blocks of its own."""
    stream, found = zlib.compressobj(1), list[bytes]()
    for lane in lanes:
        found += stream.compress(lane), stream.flush(zlib.Z_BLOCK)
    return b"".join((*found, stream.flush()))


def _stored(lanes: list[bytes]) -> bytes:
    """Store the lanes uncompressed; zlib-ng, used by some systems for zlib, may enlarge noise."""
    whole = b"".join(lanes)
    return b"".join((_HEAD, *_as_it_is(whole), _END, zlib.adler32(whole).to_bytes(4, "big")))


def _stream(strategy: int) -> "zlib._Compress":
    return zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)


def _strategy(lane: bytes) -> int | None:
    """The zlib strategy for a lane: LZ77 or Huffman coding only; None: store uncompressed."""
    trial = _middle(lane, min(len(lane) // 4, _TRY))
    stream = _stream(zlib.Z_DEFAULT_STRATEGY)
    repeating = len(stream.compress(trial) + stream.flush()) / len(trial)
    if repeating < _REPEATS:
        return zlib.Z_DEFAULT_STRATEGY
    counts = np.bincount(np.frombuffer(_middle(lane, _LOOK), np.uint8))
    shares = counts[counts > 0] / counts.sum()
    frequent = -float(shares @ np.log2(shares)) / 8 + _CODE_BYTES / len(lane)  # Shannon's entropy
    if min(repeating, frequent) > _WORTH:
        return None
    return zlib.Z_HUFFMAN_ONLY if frequent < repeating else zlib.Z_DEFAULT_STRATEGY


def _middle(lane: bytes, size: int) -> bytes:
    begin = max(len(lane) - size, 0) // 2
    return lane[begin : begin + size]


def _as_it_is(lane: bytes) -> list[bytes]:
    """Uncompressed blocks of a lane: their length, its complement, and the bytes."""
    blocks = list[bytes]()
    for first in range(0, len(lane), _STORED):
        block = lane[first : first + _STORED]
        blocks += _STORED_HEAD.pack(0, len(block), len(block) ^ _STORED), block
    return blocks
