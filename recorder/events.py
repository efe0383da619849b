"""Events and their values, and the checks of what callers pass in.

This module uses no files and no clock, and does not import torch. Live plotting and recording
both pass every value through `normalise`; partly for that reason, replaying a recording gives the
same windows as live plotting.
"""

import math
import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from decimal import Decimal
from numbers import Real
from typing import Any, ClassVar, SupportsIndex, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import InputError

Array: TypeAlias = NDArray[Any]
Part: TypeAlias = float | str | Array
"""One argument of a meter: a number, a string, or an array."""
Value: TypeAlias = Part | tuple[Part, ...]
"""The value of a key: one argument of a meter, or a tuple of them."""


@dataclass(frozen=True)
class Reduction(ABC):
    """How a meter reduces a value to a small state.

    The fields are the arguments of the meter's constructor that the state depends on.
    """

    meter: ClassVar[str]
    """The meter's name."""
    shown: ClassVar[tuple[str, ...]] = ()
    """The meter's other arguments, which change its results but not its state."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Arguments that `args` leaves out when they are empty or false."""

    @abstractmethod
    def state_of(self, *args: Any) -> tuple[Part, ...]:
        """The state of the meter for `add(*args)`; raises MeterError as `add` does."""

    def serves(self, asked: "Reduction") -> bool:
        """Whether a meter with the reduction `asked` can read states of this reduction."""
        return self == asked

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> "Reduction":
        """The reduction of a meter with the given constructor arguments.

        Raises:
            TypeError, ValueError: the meter has no such argument, or does not accept its value.
        """
        known = [field.name for field in fields(cls)]
        for name in args:
            if name not in known and name not in cls.shown:
                there = ", ".join((*known, *cls.shown)) or "none"
                raise TypeError(f"it has no argument {name!r}; its arguments are {there}")
        return cls(**{name: value for name, value in args.items() if name in known})

    def args(self) -> dict[str, Any]:
        """The arguments that the state depends on, as plain data."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in every.items() if value or name not in self.optional}

    def __str__(self) -> str:
        args = ", ".join(f"{name}={value!r}" for name, value in self.args().items())
        return f"{self.meter}({args})"


class State(tuple[Part, ...]):
    """A meter's state, recorded in place of a value; `reduction` says of which meter."""

    reduction: "Reduction"

    def __new__(cls, parts: Iterable[Part], reduction: "Reduction") -> "State":
        state = super().__new__(cls, parts)
        state.reduction = reduction
        return state


class Later:
    """A number that an accelerator may not have computed yet; `float` waits for it.

    >>> float(Later(lambda: 0.5))
    0.5
    """

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read

    def __float__(self) -> float:
        return float(self._read())


LARGEST = 2**53
"""Limit on an array's size in bytes, also when its empty axes are counted as length 1."""

STEPS = range(-(1 << 63), 1 << 63)
"""The valid step numbers."""

_WIDEST = 16  # largest itemsize of an array, in bytes
_ACCEPTED = (
    "a number, a 0-d tensor, an array or tensor, a string, or a tuple or list of those "
    "(the meter's arguments)"
)


@dataclass(frozen=True, slots=True)
class Add:
    """Values were added, all at the same step and time."""

    values: Mapping[str, Value]
    step: int
    time: float


@dataclass(frozen=True, slots=True)
class Log:
    """A mark: plot the meters of `keys` (None: all) at `x`, and reset them if `reset`.

    `axis` is the caller's name for x, such as "epoch" for `log(epoch=3)`.
    """

    x: float
    keys: tuple[str, ...] | None
    reset: bool
    step: int
    time: float
    axis: str | None = None

    @property
    def axis_name(self) -> str | None:
        """The name of x: `axis` if given, "step" if x is the step, else None."""
        return self.axis or ("step" if self.x == self.step else None)


@dataclass(frozen=True, slots=True)
class Reset:
    """The meters of `keys` (None: all) were reset without plotting."""

    keys: tuple[str, ...] | None
    step: int
    time: float


Event: TypeAlias = Add | Log | Reset
Known: TypeAlias = dict[int, tuple[object, Part]]


def normalise(key: str, value: object, known: "Known | None" = None) -> Value | None:
    """Convert a caller's value to the value to record; None means "nothing to add".

    >>> normalise("loss", np.float32(0.5))
    0.5

    Numbers (0-d arrays and tensors too) become float64; arrays and tensors become an owned
    numpy array of the same dtype, with bfloat16 and float8 widened to float32, which is exact;
    a list becomes a tuple. Integers beyond 2**53 are rounded to the nearest float64.

    Args:
        key: the value's key, for error messages.
        value: the caller's value.
        known: the arrays already converted in this add, by id, each with its copy; new ones are
            added. An array that appears again is not copied again.

    Raises:
        InputError: the value has another type; the message names the key and the type.
    """
    if value is None or isinstance(value, State):
        return value
    if isinstance(value, (tuple, list)):
        if not value:
            raise InputError(f"{key!r}: an empty {type(value).__name__} has nothing to record")
        return tuple(_part(key, item, known) for item in value)
    return _part(key, value, known)


def gather(values: object, named: Mapping[str, object]) -> Mapping[str, object]:
    """Merge the arguments of `add`, a mapping (or None) and keywords, into one mapping."""
    if type(values) is dict and not named:
        return values
    if values is None:
        return named
    if not isinstance(values, Mapping):
        raise InputError(
            f"add takes a mapping or keywords, got {type(values).__name__}: "
            'write add({"loss": value})'
        )
    return {**values, **named}


_NO_VALUES = (
    "log takes one position on the x axis, and no values: "
    'write add({"loss": value}), and then log(epoch)'
)


def normalise_keys(keys: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Convert the `keys` argument of `log` and `reset`: None for all, one name, or several.

    Raises:
        InputError: it is anything else, such as the values themselves.
    """
    if keys is None:
        return None
    if isinstance(keys, Mapping) or not isinstance(keys, Iterable):
        raise InputError(f"keys must be names, got {type(keys).__name__}: {_NO_VALUES}")
    names = (keys,) if isinstance(keys, str) else tuple(keys)
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"keys must be strings, got {type(name).__name__}")
    return names


def whole_step(step: object) -> int:
    """Convert a step to an int.

    Raises:
        InputError: `step` is not an integer, or does not fit 64 bits.
    """
    if type(step) is int and step in STEPS:
        return step  # the check below takes ten times as long
    if isinstance(step, SupportsIndex) and not isinstance(step, bool):
        with suppress(TypeError, ValueError, RuntimeError):  # an array or tensor of several
            whole = operator.index(step)
            if whole in STEPS:
                return whole
    raise InputError(f"step must be a 64-bit integer, got {step!r:.40}")


Position = TypeVar("Position")


def named_position(
    x: Position | None, named: Mapping[str, Position]
) -> tuple[Position | None, str | None]:
    """The x of `log` and its name, from the argument `x` or from one keyword such as `epoch=3`.

    >>> named_position(None, {"epoch": 3})
    (3, 'epoch')

    Raises:
        InputError: values or more than one position are given, or the keyword's value is None.
    """
    if isinstance(x, (str, Mapping)) or len(named) + (x is not None) > 1:
        raise InputError(_NO_VALUES)
    if not named:
        return x, None
    ((axis, value),) = named.items()
    if value is None:
        raise InputError(f"{axis} must be a number, got None")
    return value, axis


def log_position(x: object, name: str = "x") -> float:
    """Convert the `x` of `log`, the position of a point on the x axis, to a float.

    Raises:
        InputError: `x` is not a number, or not finite.
    """
    try:
        position = None if isinstance(x, bool) else normalise(name, x)
    except InputError:
        position = None  # no value of an event either: a date, a complex number
    if not isinstance(position, float) or not math.isfinite(position):
        got = position if isinstance(position, float) else type(x).__name__
        hint = "; of a date, give its timestamp()" if hasattr(x, "timestamp") else ""
        raise InputError(f"{name} must be a finite number, got {got}{hint}")
    return position


def _part(key: str, value: object, known: "Known | None") -> Part:
    if isinstance(value, (Real, Decimal, np.number, np.bool_, Later)):
        return _number(key, value)
    if isinstance(value, str):
        return value
    if known is not None and id(value) in known:
        return known[id(value)][1]
    array = array_of(key, value) if is_tensor(value) else value
    if isinstance(array, np.ndarray):
        part = _array(key, array)
        if known is not None:
            known[id(value)] = value, part
        return part
    raise InputError(f"{key!r}: cannot record a {_type_name(value)}; accepted are {_ACCEPTED}")


def _number(key: str, value: Any) -> float:
    if isinstance(value, np.complexfloating):
        raise InputError(f"{key!r}: cannot record a complex number; record real and imag apart")
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"{key!r}: {value!r:.40} is too large for a float64") from None
    except (TypeError, ValueError):  # numpy's timedelta64, a signalling NaN
        raise InputError(
            f"{key!r}: cannot record a {_type_name(value)}; accepted are {_ACCEPTED}"
        ) from None


def _array(key: str, array: Array) -> Part:
    if array.dtype.kind not in "biufc":
        raise InputError(
            f"{key!r}: cannot record an array of dtype {array.dtype}; "
            "accepted are booleans, integers, floats and complex numbers"
        )
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise InputError(
            f"{key!r}: cannot record an array with masked elements; pass array.filled(…), for "
            "example with NaN, or array.compressed()"
        )
    if array.ndim == 0:
        return _number(key, array[()])
    check_shape(key, array.shape)
    dtype = array.dtype.newbyteorder("=")
    if dtype.itemsize > (16 if dtype.kind == "c" else 8):  # long double is not portable
        dtype = np.dtype(np.complex128 if dtype.kind == "c" else np.float64)
    return np.array(array, dtype=dtype, order="C", copy=True, subok=False)


def check_shape(key: str, shape: tuple[int, ...]) -> None:
    """Raise InputError for an empty array whose other axes exceed the reader's limit."""
    if 0 in shape and math.prod(max(axis, 1) for axis in shape) * _WIDEST >= LARGEST:
        raise InputError(f"{key!r}: cannot record an array of shape {shape}")


def is_tensor(value: object) -> bool:
    """Whether `value` is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def array_of(key: str, tensor: Any) -> Array:
    """A tensor's values as a numpy array, which may share the tensor's memory."""
    torch = sys.modules["torch"]
    if tensor.is_quantized or tensor.is_meta:
        kind = "quantized" if tensor.is_quantized else "meta"
        raise InputError(f"{key!r}: cannot record a {kind} tensor; accepted are {_ACCEPTED}")
    try:
        tensor = tensor.detach()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        tensor = tensor.cpu()
        if tensor.is_floating_point() and tensor.dtype not in (
            torch.float16,
            torch.float32,
            torch.float64,
        ):
            tensor = tensor.float()  # bfloat16 and float8, which numpy lacks
        array: Array = tensor.resolve_conj().resolve_neg().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # nested, complex32, …
        why = f"{error}".splitlines()[0]
        raise InputError(
            f"{key!r}: cannot record a tensor of {tensor.dtype}, {tensor.layout}: {why:.100}"
        ) from None
    return array


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
