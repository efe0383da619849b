"""Check the arguments of meters and convert them to numpy arrays. Does not import torch."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import MeterError
from flexrec.recorder.events import Array, array_of, is_tensor

Ints = NDArray[np.signedinteger[Any]]

NUMBERS = (float, int, np.floating, np.integer)
"""The types of plain numbers."""
_READY = "?bhilqBHILQfdg"
"""The types of arrays that meters work on, as characters."""


def array(what: str, value: object, *, keep: bool = False) -> Array:
    """The value as an array of booleans, integers or floats.

        >>> array("output", [1, 2]).tolist()
        [1, 2]

    Args:
        what: the argument's name, for the message.
        value: a number, an array, a tensor on any device, or nested lists of numbers.
        keep: whether the meter keeps the array; a tensor, whose memory may be written to later,
            is then copied.

    Raises:
        MeterError: the value has another type.
    """
    if type(value) is np.ndarray and value.dtype.char in _READY:
        return value  # the usual case: nothing more to check
    if is_tensor(value):
        found = array_of(what, value)
        found = found.copy() if keep else found
    else:
        try:
            found = np.asarray(value)
        except ValueError:
            raise MeterError(f"{what} must be an array, got lists of unequal lengths") from None
    if found.dtype.kind not in "biuf":
        came = type(value).__name__ if found.ndim == 0 else f"an array of {found.dtype}"
        raise MeterError(f"{what} must be real numbers, got {came}")
    return found.astype(np.float32) if found.dtype.char == "e" else found


def number(what: str, value: object) -> float:
    """The value as one float: a number, or an array or tensor of one element.

    >>> number("value", np.array([0.5]))
    0.5
    """
    if isinstance(value, NUMBERS):
        try:
            return float(value)
        except OverflowError:
            raise MeterError(f"{what} must fit a float64, got {value!r:.40}") from None
    found = array(what, value)
    if found.size != 1:
        raise MeterError(f"{what} must be one number, got an array of shape {found.shape}")
    return float(found.reshape(()))


def count(what: str, value: Any, *, least: int = 1) -> int:
    """Check a constructor's argument that must be an integer of at least `least`.

    >>> count("windowsize", 3)
    3
    """
    try:
        whole = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be a whole number, got {value!r}") from None
    if whole < least or isinstance(value, bool):
        raise ValueError(f"{what} must be a whole number of at least {least}, got {value!r}")
    return whole


def ignored(value: Any) -> tuple[int, ...]:
    """Convert a constructor's argument of class numbers to ignore (none, one or several), sorted.

    >>> ignored(-100), ignored([255, -100]), ignored(None)
    ((-100,), (-100, 255), ())
    """
    several = () if value is None else value if isinstance(value, Iterable) else (value,)
    try:
        return tuple(sorted({operator.index(each) for each in several}))
    except TypeError:
        raise TypeError(f"ignore must be a class number or several, got {value!r:.60}") from None


def flattened(scores: Array, classes: Array) -> tuple[Array, Array]:
    """Reshape scores (N, C, …) and classes (N, …) to (samples, C) and (samples,), if they are such.

    >>> scores, classes = flattened(np.zeros((2, 3, 4, 4)), np.zeros((2, 4, 4)))
    >>> scores.shape, classes.shape
    ((32, 3), (32,))
    """
    if scores.ndim < 3 or classes.shape != (len(scores), *scores.shape[2:]):
        return scores, classes
    rows = np.moveaxis(scores, 1, -1).reshape(classes.size, scores.shape[1])
    return rows, classes.reshape(-1)


def counting(classes: Array, ignore: Sequence[int]) -> Array:
    """A mask of the classes (N,) that are not ignored.

    >>> counting(np.array([0, -100, 1]), [-100]).tolist()
    [True, False, True]
    """
    counts = np.ones(classes.shape, bool)
    for each in ignore:
        counts &= classes != each
    return counts


def labels(what: str, found: Array, k: int) -> tuple[Ints, int]:
    """Class numbers 0 to k − 1 as (N,) integers, and one more than the largest (0 if N is 0).

    >>> labels("target", np.array([0.0, 2.0]), 3)
    (array([0, 2]), 3)
    """
    found = found.reshape(-1)
    if found.dtype.kind == "f" and not ((found == np.floor(found)) & (abs(found) < 2.0**63)).all():
        raise MeterError(f"{what} must be class numbers, got fractions or NaN")
    whole = found if found.dtype == np.int32 else found.astype(np.int64, copy=False)
    many = span(whole)
    if many > k:
        raise MeterError(f"{what} must be classes 0 to {k - 1}, got {found.min()} to {found.max()}")
    return whole, many


def span(whole: Ints) -> int:
    """One more than the largest number, with negative ones counting as larger than any; 0 if empty.

    >>> span(np.array([2, 0])), span(np.array([2, -1])) > 2**63
    (3, True)
    """
    unsigned = whole.view(np.uint32 if whole.itemsize == 4 else np.uint64)  # it wraps around
    return int(np.maximum.reduce(unsigned)) + 1 if whole.size else 0


def binary(what: str, value: object) -> NDArray[np.bool_]:
    """An array of 0 and 1 as booleans, of its own shape.

    >>> binary("target", [0, 1]).tolist()
    [False, True]
    """
    found = array(what, value)
    if found.dtype == bool:
        return found.copy()
    hits: NDArray[np.bool_] = found == 1
    if np.count_nonzero(hits) < np.count_nonzero(found):
        raise MeterError(f"{what} must be 0 or 1, got {found.min()} to {found.max()}")
    return hits


def shapes_differ(names: Sequence[str], arrays: Sequence[Array]) -> MeterError:
    """The error for arrays whose shapes do not match.

    >>> raise shapes_differ(("output", "target"), (np.zeros((2, 1)), np.zeros(2)))
    Traceback (most recent call last):
    flexrec.recorder.errors.MeterError: output (2, 1) and target (2,) do not fit
    """
    each = " and ".join(f"{n} {a.shape}" for n, a in zip(names, arrays, strict=True))
    return MeterError(f"{each} do not fit")
