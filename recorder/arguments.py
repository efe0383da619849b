"""What meters' `add` is given, checked and as numpy arrays. No meters here, and no torch import."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import MeterError
from flexrec.recorder.events import Array, array_of, is_tensor

__all__ = ["array", "binary", "count", "labels", "number", "shapes_differ"]


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
        MeterError: it is nothing of the kind.
    """
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
    return found.astype(np.float32) if found.dtype == np.float16 else found


def number(what: str, value: object) -> float:
    """The value as one float: a number, or an array or tensor of one element.

    >>> number("value", np.array([0.5]))
    0.5
    """
    if type(value) is float:
        return value
    found = array(what, value)
    if found.size != 1:
        raise MeterError(f"{what} must be one number, got an array of shape {found.shape}")
    return float(found.reshape(()))


def count(what: str, value: Any, *, least: int = 1) -> int:
    """A constructor's argument that is a whole number, at least `least`.

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


def labels(what: str, value: object, k: int) -> NDArray[np.int64]:
    """Class numbers 0 to k − 1 as (N,) int64; one number is N = 1.

    >>> labels("target", [0.0, 2.0], 3).tolist()
    [0, 2]
    """
    found = array(what, value)
    found = found.reshape(1) if found.ndim == 0 else found
    if found.ndim != 1:
        raise MeterError(f"{what} must be class numbers (N,), got shape {found.shape}")
    if found.dtype.kind == "f" and not ((found == np.floor(found)) & (abs(found) < 2.0**63)).all():
        raise MeterError(f"{what} must be class numbers, got fractions or NaN")
    whole = found.astype(np.int64, copy=False)
    if whole.size and np.maximum.reduce(whole.view(np.uint64)) >= k:  # below 0 it wraps around
        least, most = found.min(), found.max()
        raise MeterError(f"{what} must be classes 0 to {k - 1}, got {least} to {most}")
    return whole


def binary(what: str, value: object) -> NDArray[np.bool_]:
    """An array of 0 and 1 as booleans, of its own shape.

    >>> binary("target", [0, 1]).tolist()
    [False, True]
    """
    found = array(what, value)
    if found.dtype == bool:
        return found.copy()
    hits: NDArray[np.bool_] = found == 1
    if not (hits | (found == 0)).all():
        raise MeterError(f"{what} must be 0 or 1, got {found.min()} to {found.max()}")
    return hits


def shapes_differ(names: Sequence[str], arrays: Sequence[Array]) -> MeterError:
    """The error to raise where shapes do not fit each other.

    >>> raise shapes_differ(("output", "target"), (np.zeros((2, 1)), np.zeros(2)))
    Traceback (most recent call last):
    flexrec.recorder.errors.MeterError: output (2, 1) and target (2,) do not fit
    """
    each = " and ".join(f"{n} {a.shape}" for n, a in zip(names, arrays, strict=True))
    return MeterError(f"{each} do not fit")
