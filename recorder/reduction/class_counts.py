"""Classes: which have the highest scores, and how often one is taken for another.

In numpy, in blocks that stay in the processor's cache. Nothing is checked here, and no states.
"""

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.events import Array

Ints: TypeAlias = NDArray[np.signedinteger[Any]]
Counts: TypeAlias = NDArray[np.unsignedinteger[Any]]

_BLOCK = 1 << 16
"""How many values are worked on at a time."""
_FEW = 32
"""Rows of no more classes are worked on class by class: numpy is slow where an axis is short."""


def highest(scores: Array) -> Ints:
    """The class of the highest score of each row, NaN the highest, the lower class of equals.

    >>> highest(np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.5]])).tolist()
    [1, 0]
    """
    found: Ints = scores.argmax(axis=1)
    return found


def ranks_from_below(scores: Array, classes: Ints) -> Counts:
    """How many classes, its own with them, come no earlier than each sample's own.

    >>> ranks_from_below(np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.5]]), np.array([1, 2])).tolist()
    [3, 2]
    """
    n, C = scores.shape
    block = max(1, _BLOCK // C)
    if n <= block:
        return _behind(scores, classes)
    return np.concatenate(
        [_behind(scores[i : i + block], classes[i : i + block]) for i in range(0, n, block)]
    )


def _behind(scores: Array, classes: Ints) -> Counts:
    n, C = scores.shape
    columns = _columns(C)
    kind = columns.dtype
    own = scores.take(np.arange(0, n * C, C) + classes)[:, np.newaxis]
    if C <= _FEW:
        scores = np.asfortranarray(scores)
    ranks_from_below = scores <= own  # false for NaN, which comes earlier
    at = classes.astype(kind)[:, np.newaxis]
    later = np.greater_equal(columns, at, out=np.empty_like(ranks_from_below))
    ranks_from_below &= later
    ranks_from_below |= scores < own
    many: Counts = np.add.reduce(ranks_from_below.view(np.uint8), axis=1, dtype=kind)
    if np.count_nonzero(many) < n:  # of these the own score is NaN
        rows = np.flatnonzero(many == 0)
        earlier = np.isnan(scores[rows]) & ~later[rows]
        many[rows] = C - np.count_nonzero(earlier, axis=1)
    return many


@lru_cache(maxsize=16)
def _columns(C: int) -> Counts:
    """0 to C − 1, of the narrowest type that counts to C."""
    columns: Counts = np.arange(C, dtype=np.min_scalar_type(C))
    return columns


def cells(rows: Ints, columns: Ints, k: int) -> NDArray[np.int64]:
    """Each sample's cell of (k, k), row by row.

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
    """(k, the cells of counts (k, k) that are not 0, row by row, their counts).

    >>> k, cells, counts = sparse(np.array([[0, 1], [0, 3]]))
    >>> k, cells.tolist(), counts.tolist()
    (2.0, [1, 3], [1, 3])
    """
    flat = counts.ravel()
    cells = np.flatnonzero(flat)
    return float(len(counts)), cells, flat[cells]
