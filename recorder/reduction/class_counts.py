"""Count classes: highest scores, ranks, and confusion matrices.

All in numpy, in blocks that fit the processor's cache. Arguments are not checked here.
"""

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.events import Array

Ints: TypeAlias = NDArray[np.signedinteger[Any]]
Counts: TypeAlias = NDArray[np.unsignedinteger[Any]]

_BLOCK = 1 << 16
"""The number of values that are processed at a time."""
_FEW = 32
"""Up to this many classes are processed class by class, since numpy is slow on short axes."""


def highest(scores: Array) -> Ints:
    """The class with the highest score of each row; NaN counts as highest, ties go to the lower.

    >>> highest(np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.5]])).tolist()
    [1, 0]
    """
    found: Ints = scores.argmax(axis=1)
    return found


def ranks_from_below(scores: Array, classes: Ints) -> Counts:
    """For each sample, the number of classes ranked no higher than its own, itself included.

    >>> ranks_from_below(np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.5]]), np.array([1, 2])).tolist()
    [3, 2]
    """
    n, C = scores.shape
    block = max(1, _BLOCK // C)
    if n <= block:
        return _ranks_of_block(scores, classes)
    return np.concatenate(
        [_ranks_of_block(scores[i : i + block], classes[i : i + block]) for i in range(0, n, block)]
    )


def _ranks_of_block(scores: Array, classes: Ints) -> Counts:
    n, C = scores.shape
    columns = _columns(C)
    kind = columns.dtype
    own = scores.take(np.arange(0, n * C, C) + classes)[:, np.newaxis]
    if C <= _FEW:
        scores = np.asfortranarray(scores)
    ranks_from_below = scores <= own  # false for NaN, which ranks higher
    at = classes.astype(kind)[:, np.newaxis]
    later = np.greater_equal(columns, at, out=np.empty_like(ranks_from_below))
    ranks_from_below &= later
    ranks_from_below |= scores < own
    many: Counts = np.add.reduce(ranks_from_below.view(np.uint8), axis=1, dtype=kind)
    if np.count_nonzero(many) < n:  # for the others the own score is NaN
        rows = np.flatnonzero(many == 0)
        earlier = np.isnan(scores[rows]) & ~later[rows]
        many[rows] = C - np.count_nonzero(earlier, axis=1)
    return many


@lru_cache(maxsize=16)
def _columns(C: int) -> Counts:
    """0 to C − 1, in the smallest dtype that can hold C."""
    columns: Counts = np.arange(C, dtype=np.min_scalar_type(C))
    return columns


def cells(rows: Ints, columns: Ints, k: int) -> NDArray[np.int64]:
    """The index of each sample's cell in a flattened (k, k) matrix.

    >>> cells(np.array([0, 1]), np.array([2, 2]), 3).tolist()
    [2, 5]
    """
    return np.multiply(rows, k, dtype=np.int64) + columns


def tally(rows: Ints, columns: Ints, counts: NDArray[np.int64]) -> None:
    """Add each sample to its cell of counts (k, k).

    >>> tally(np.array([0, 1]), np.array([1, 1]), counts := np.zeros((2, 2), np.int64))
    >>> counts.tolist()
    [[0, 1], [0, 1]]
    """
    k, flat = len(counts), counts.reshape(-1)
    if rows.size * 64 < flat.size:
        np.add.at(flat, cells(rows, columns, k), 1)
        return
    block = max(_BLOCK, 8 * flat.size)
    for i in range(0, rows.size, block):
        part = slice(i, i + block)
        flat += np.bincount(cells(rows[part], columns[part], k), minlength=flat.size)


def sparse(counts: NDArray[np.int64]) -> tuple[float, Ints, Ints]:
    """A matrix of counts (k, k) as (k, flat indices of its nonzero cells, their counts).

    >>> k, cells, counts = sparse(np.array([[0, 1], [0, 3]]))
    >>> k, cells.tolist(), counts.tolist()
    (2.0, [1, 3], [1, 3])
    """
    flat = counts.ravel()
    cells = np.flatnonzero(flat)
    return float(len(counts)), cells, flat[cells]
