"""A run's settings (config) as plain JSON data, and changes to them during the run."""

import copy
import dataclasses
import enum
import json
import math
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence, Set
from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from types import BuiltinFunctionType, FunctionType, MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from flexrec.recorder.errors import InputError, RecordingError
from flexrec.recorder.events import is_tensor
from flexrec.recorder.storage import format as fmt

_ELEMENTS = 1000  # most elements of an array, or of a range
_DEEPEST = 200  # nested objects and lists: Python's JSON reads about 900, fewer in deep calls


def as_json(name: str, value: Any) -> str:
    """Convert a value to JSON text.

    Paths, enums, dates, times, decimals, UUIDs, torch's dtypes and devices, functions and classes
    become strings. Arrays and tensors of at most 1000 elements become lists. A mapping, an
    argparse.Namespace, a dataclass, and anything with `to_dict()` or `model_dump()` becomes an
    object.

    Raises:
        RecordingError: a value cannot be converted; the message has `name` and the keys.
    """
    try:
        text = fmt.json_text(value, default=_plain)
        _check_depth(json.loads(text, object_pairs_hook=_distinct))
    except Exception as error:  # noqa: BLE001 - mappings of other packages may raise anything
        where, why = _culprit(name, value, error, frozenset())
        raise RecordingError(f"{where} must be plain JSON data: {why}") from None
    return text


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object with these keys and values; raises ValueError if a key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        double = next(key for key in names if names.count(key) > 1)
        raise ValueError(f"two of its keys become {double!r:.40} in JSON")
    return found


def _check_depth(data: Any) -> None:
    """Raise RecursionError for data that a reader might not be able to parse."""
    level = [data] if isinstance(data, (dict, list)) else []
    for _ in range(_DEEPEST + 1):
        if not level:
            return
        inside = [part.values() if isinstance(part, dict) else part for part in level]
        level = [one for part in inside for one in part if isinstance(one, (dict, list))]
    raise RecursionError


def _culprit(name: str, value: Any, why: Exception, around: frozenset[int]) -> tuple[str, object]:
    """The name of the part that JSON lacks, and why; `around` has the ids of enclosing values."""
    if isinstance(why, RecursionError):
        return name, "it is nested too deeply"
    part, around = _plain_or_same(value), around | {id(value)}
    for key, inner in part.items() if isinstance(part, dict) else ():
        if id(inner) in around:
            return f"{name}[{key!r:.80}]", "it is a part of itself"
        try:
            json.dumps(inner, default=_plain)
        except Exception as error:  # noqa: BLE001 - as above
            return _culprit(f"{name}[{key!r:.80}]", inner, error, around)
    return name, why


def _plain_or_same(value: Any) -> Any:
    try:
        return value if isinstance(value, dict) else _plain(value)
    except Exception:  # noqa: BLE001 - the caller reports the error
        return value


def _plain(value: Any) -> Any:
    """Convert a value that JSON lacks to one that it has."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.dtype):
        return str(value)
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return None if np.isnat(value) else str(value)
    if isinstance(value, np.longdouble):
        return float(value)
    if isinstance(value, np.generic) or (is_tensor(value) and not value.ndim):
        return value.item()
    if isinstance(value, np.ndarray) or is_tensor(value):
        return _listed(value)
    if isinstance(value, enum.Enum):
        return value.name or str(value)  # an empty Flag has no name
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (timedelta, Decimal, Fraction, UUID)):
        return str(value)
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, (Namespace, SimpleNamespace)):
        return vars(value)
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: value[key] for key in value}
    if isinstance(value, (Sequence, Set)) and not isinstance(value, (bytes, bytearray, memoryview)):
        if isinstance(value, range):
            _check_count(len(value), "a range")
        return _ordered(value) if isinstance(value, Set) else list(value)
    for name in ("to_dict", "model_dump"):
        if callable(getattr(value, name, None)):
            return getattr(value, name)()
    if type(value).__module__ == "torch" and type(value).__name__ in _TORCH:
        return str(value)
    raise TypeError(f"JSON has no {type(value).__name__}")


def _listed(array: Any) -> Any:
    _check_count(math.prod(array.shape), "an array")
    if isinstance(array, np.ndarray) and array.dtype.kind in "mM":
        array = np.reshape([_plain(one) for one in array.flat], array.shape)
    return array.tolist()


def _check_count(count: int, what: str) -> None:
    if count > _ELEMENTS:
        raise TypeError(f"{what} of {count:,} elements is no setting; record it with add()")


def _ordered(values: Set[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:  # of several kinds
        return sorted(values, key=repr)


_TORCH = ("device", "dtype", "layout", "memory_format")


class Config(MutableMapping[str, Any]):
    """The config of a recording; changes made here are recorded.

    >>> rec.config.update(lr=1e-3)

    Nested values cannot be changed in place: set the whole value.

    Args:
        data: the initial config, as plain JSON data.
        record: called with the JSON text of the whole config when it changes.

    Raises:
        RecordingError: a value is not plain JSON data, or the recorder is closed; the config is
            then unchanged.
    """

    def __init__(self, data: dict[str, Any], record: Callable[[str], None]) -> None:
        self._data, self._record = data, record

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy or pickle is a plain dict, which records nothing."""
        return dict, (self.as_dict(),)

    if not TYPE_CHECKING:  # else type checkers allow setting any attribute

        def __setattr__(self, name: str, value: object) -> None:
            if name not in ("_data", "_record"):
                write = f"rec.config.update({name}={value!r:.40})"
                raise AttributeError(f"write {write}", name=name, obj=self)
            super().__setattr__(name, value)

    def __getitem__(self, key: str) -> Any:
        return _frozen(self._data[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        left = dict(self._data)
        del left[key]
        self._set(left)

    def update(self, values: Any = (), /, **named: Any) -> None:
        """Set several values, recorded as one change.

        Args:
            values: a mapping, pairs, or anything that `Recorder(config=…)` takes.
            named: more values.

        Raises:
            InputError: `values` has another type.
            RecordingError: as for the class.
        """
        plain = values if isinstance(values, (list, tuple)) else _plain_or_same(values)
        try:
            changes = dict(plain)
        except (TypeError, ValueError):
            raise InputError(
                "config.update takes a mapping, pairs or keywords, got "
                f"{type(values).__name__}: write rec.config.update(lr=1e-3)"
            ) from None
        text = as_json("config", {**changes, **named})
        self._set({**self._data, **json.loads(text)})

    def as_dict(self) -> dict[str, Any]:
        """A copy of the whole config, as plain JSON data."""
        return copy.deepcopy(self._data)

    def _set(self, data: dict[str, Any]) -> None:
        text = as_json("config", data)
        self._record(text)
        self._data = json.loads(text)

    def __repr__(self) -> str:
        return f"Config({self._data!r})"


def _frozen(value: Any) -> Any:
    """A read-only version of a value, since changes inside it would not be recorded."""
    if isinstance(value, dict):
        return MappingProxyType({key: _frozen(inner) for key, inner in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
