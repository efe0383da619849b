"""config: a run's settings, as plain JSON data; and how they change while the run goes on."""

import copy
import dataclasses
import enum
import json
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence, Set
from types import BuiltinFunctionType, FunctionType, MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np

from flexrec.recorder.errors import InputError, RecordingError
from flexrec.recorder.events import is_tensor


def as_json(name: str, value: Any) -> str:
    """The JSON text of a value.

    Paths, enums, torch's dtypes and devices, functions and classes become texts. What has names
    and values becomes an object: a mapping, an argparse.Namespace, a dataclass, and whatever has
    `to_dict()` or `model_dump()`.

    Raises:
        RecordingError: JSON has no such value; `name` and the keys say where.
    """
    try:
        return json.dumps(value, ensure_ascii=False, default=_plain)
    except Exception as error:  # noqa: BLE001 - whatever the mappings of other packages raise
        where, why = _culprit(name, value, error, frozenset())
        raise RecordingError(f"{where} must be plain JSON data: {why}") from None


def _culprit(name: str, value: Any, why: Exception, around: frozenset[int]) -> tuple[str, object]:
    """Which part of a value JSON does not have, and why; `around` are the ids of what it is in."""
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
    except Exception:  # noqa: BLE001 - it is what is told already
        return value


def _plain(value: Any) -> Any:
    """What JSON has in place of a value that it has not."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic) or (is_tensor(value) and not value.ndim):
        return value.item()
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, (Namespace, SimpleNamespace)):
        return vars(value)
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: value[key] for key in value}
    if isinstance(value, (Sequence, Set)) and not isinstance(value, (bytes, bytearray, memoryview)):
        return _ordered(value) if isinstance(value, Set) else list(value)
    for name in ("to_dict", "model_dump"):
        if callable(getattr(value, name, None)):
            return getattr(value, name)()
    if type(value).__module__ == "torch" and type(value).__name__ in _TORCH:
        return str(value)
    raise TypeError(f"JSON has no {type(value).__name__}")


def _ordered(values: Set[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:  # of several kinds
        return sorted(values, key=repr)


_TORCH = ("device", "dtype", "layout", "memory_format")


class Config(MutableMapping[str, Any]):
    """The config of a recording; what is set here is recorded.

    >>> rec.config.update(lr=1e-3)

    What is inside a value cannot be changed by itself: set the whole value.

    Args:
        data: what it is at first, as plain JSON data.
        record: called with the JSON text of all of it when it changes.

    Raises:
        RecordingError: JSON has no such value, or the recorder is closed; nothing is changed.
    """

    def __init__(self, data: dict[str, Any], record: Callable[[str], None]) -> None:
        self._data, self._record = data, record

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
        """Set several values, which are recorded at once.

        Args:
            values: a mapping, pairs, or what else `Recorder(config=…)` takes.
            named: more of them.

        Raises:
            InputError: values are none of those.
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
        self._set({**self._data, **changes, **named})

    def as_dict(self) -> dict[str, Any]:
        """All of it, as plain JSON data of one's own."""
        return copy.deepcopy(self._data)

    def _set(self, data: dict[str, Any]) -> None:
        text = as_json("config", data)
        self._record(text)
        self._data = json.loads(text)

    def __repr__(self) -> str:
        return f"Config({self._data!r})"


def _frozen(value: Any) -> Any:
    """The value, where a change of it would be lost: one that cannot be changed."""
    if isinstance(value, dict):
        return MappingProxyType({key: _frozen(inner) for key, inner in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
