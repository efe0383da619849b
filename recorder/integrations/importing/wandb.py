"""Read wandb's offline files, run-….wandb: history and config.

The file is a log of blocks, as LevelDB's; wandb's own messages decode its records. wandb has no
reader in Python. Tested with wandb 0.31.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from flexrec.recorder.errors import MissingDependency
from flexrec.recorder.events import Add
from flexrec.recorder.integrations.importing.logged import json_float, logged_values
from flexrec.recorder.integrations.importing.source import NOT_ENDED, Item, Notes, Settings

try:
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record
except ImportError as missing:
    raise MissingDependency.of("wandb's files", "wandb") from missing

_BLOCK, _MAGIC = 1 << 15, b":W&B"
_HEAD = struct.Struct("<IHB")  # checksum, length, and which part of a record it is
_OWN = ("_step", "_timestamp", "_runtime")
_FULL, _FIRST, _LAST = 1, 2, 4


def read_wandb(files: tuple[Path, ...], notes: Notes) -> Iterator[Item]:
    """The history and config in offline files."""
    for path in files:
        with path.open("rb") as file:
            step, has_ended, damages = 0, False, len(notes.damage)
            for data in _records(path, file, notes):
                try:
                    record = Record.FromString(data)
                except DecodeError:
                    notes.damage.append(f"{path}: a record is damaged; the rest is left out")
                    return
                kind = record.WhichOneof("record_type")
                if kind == "run":
                    yield _settings(record.run.config.update)
                elif kind == "config":
                    yield _settings(record.config.update)
                elif kind == "exit":
                    has_ended = True
                elif kind == "history":
                    try:
                        for add in _adds(record.history, step, notes):
                            step = add.step + 1
                            yield add
                    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
                        notes.left_out["damaged history"] += 1  # whatever a file may hold
            if not has_ended and len(notes.damage) == damages:
                notes.damage.append(NOT_ENDED)


def _records(path: Path, file: BinaryIO, notes: Notes) -> Iterator[bytes]:
    """The records of a file, up to the first that is not whole."""
    if file.read(7)[:4] != _MAGIC:
        notes.damage.append(f"{path} is not a file of wandb")
        return
    parts = list[bytes]()
    while True:
        left = _BLOCK - file.tell() % _BLOCK
        if left < _HEAD.size:
            file.seek(left, 1)
            continue
        head = file.read(_HEAD.size)
        if not head:
            break
        check, length, part = _HEAD.unpack(head.ljust(_HEAD.size, b"\0"))
        if not (check or length or part):  # the rest of a block that was made and not filled
            break
        data = file.read(length)
        if len(data) < length or zlib.crc32(data, zlib.crc32(bytes([part]))) != check:
            parts.append(b"")
            break
        parts.append(data)
        if part in (_FULL, _LAST):
            yield b"".join(parts)
            parts = []
    if parts:
        notes.damage.append(f"{path}: its last record is not whole, and left out")


def _settings(items: Any) -> Settings:
    found = dict[str, Any]()
    for item in items:
        name = "/".join(item.nested_key) or item.key
        if name != "_wandb":
            found[name] = _loaded(item.value_json)
    return Settings(found)


def _adds(history: Any, step: int, notes: Notes) -> Iterator[Add]:
    row = dict[str, Any]()
    for item in history.item:
        *outer, name = item.nested_key or [item.key]
        inside = row
        for each in outer:
            inside = inside.setdefault(each, {})
        inside[name] = _loaded(item.value_json, json_float)
    at = history.step.num if history.HasField("step") else row.get("_step", step)
    time = row.get("_timestamp", 0.0)
    values = dict[str, Any]()
    for key, value in row.items():
        if key in _OWN:
            continue
        for name, each in logged_values(key, value, notes):
            if name in values:  # {"a/b": 1, "a": {"b": 2}}
                notes.left_out[f"first of two values of {name!r}"] += 1
            values[name] = each
    if values:
        yield Add(values, int(at), float(time))


def _loaded(text: str, parse: Callable[[str], float] = float) -> Any:
    try:
        return json.loads(text, parse_float=parse)
    except (ValueError, RecursionError):
        return text
