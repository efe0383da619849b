"""KeptRun, what a golden holds of a run: the values of its keys by step, and a code of their bits.

Nothing is read, written or compared here.
"""

import json
import string
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from flexrec.recorder.files.names import ON_ACCELERATOR

Plain: TypeAlias = float | dict[str, Any]
"""A value: a number; `{"text": ...}`; an array, such as `{"float32": [2, 3], "rms": 0.5, "bits":
"1a2b3c4d"}`; or `{"parts": [...]}` of these. An array of fingerprints says how many of them are of
an accelerator, as in `{"int64": [9], "bits": "1a2b3c4d", "accelerator": 7}`."""

CODE = 3
"""The characters of a code, of 6 bits each."""

TRACE = "trace/fingerprint"
"""The key of a trace in a golden: one fingerprint of all of a step."""

_ALPHABET = string.ascii_letters + string.digits + "+/"
_NAN = struct.pack("<d", float("nan"))


class Cell(NamedTuple):
    """The values of a key at one step.

    Attributes:
        code: stands for all bits of the values; empty if a golden was learnt and has a tolerance.
        values: the values, in order; empty if only their code is kept.
        within: how far a value may be from this one, if the golden was learnt; else None.
    """

    code: str
    values: tuple[Plain, ...] = ()
    within: float | None = None

    @property
    def number(self) -> float | None:
        """The only value, or the mean of several numbers; None if they are no numbers."""
        numbers = [number_of(value) for value in self.values]
        known = [number for number in numbers if number is not None]
        return sum(known) / len(known) if known and len(known) == len(numbers) else None


Cells: TypeAlias = dict[int, Cell]
"""The cells of a key by step, ascending."""


@dataclass(frozen=True)
class KeptRun:
    """What a golden holds of a run.

    Attributes:
        name: the name of the file.
        cells: the cells by key and step.
        config, facts: plain JSON values; of the facts, those that numbers may depend on.
        every: how many of a key's steps there are for each whose values are kept, if that was
            given; of the others the code is kept.
        learnt: the number of runs that the tolerances were learnt from; 0: there are none.
        rule: when a run differs from a learnt golden; None if it was not learnt.
        layers: empty; a golden does not keep the fields of layers.
    """

    name: str
    cells: dict[str, Cells]
    config: Any = None
    facts: Any = None
    every: int | None = None
    learnt: int = 0
    rule: "Rule | None" = None
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, init=False)


@dataclass(frozen=True)
class Rule:
    """When a run differs from a learnt golden.

    At a step at which at least `keys` keys are outside of their tolerance at `outside` or more of
    their last `of` kept steps. Of a key with fewer steps it is the same share of all.
    """

    outside: int = 10
    of: int = 15
    keys: int = 2


def number_of(value: Plain) -> float | None:
    """A number, or the root mean square of an array; None for other values."""
    return value.get("rms") if isinstance(value, dict) else value


def are_unlike(a: Cell, b: Cell) -> bool:
    """Whether two cells hold fingerprints of the CPU and of an accelerator, at the same places."""
    return len(a.values) == len(b.values) and any(map(_are_unlike, a.values, b.values))


def _are_unlike(a: Plain, b: Plain) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        are_alike = next(iter(a.items())) == next(iter(b.items()))
        return are_alike and a.get("accelerator") != b.get("accelerator")
    return is_of_accelerator(a) != is_of_accelerator(b)


def is_of_accelerator(fingerprint: Plain) -> bool:
    """Whether the number is the fingerprint of a tensor on an accelerator."""
    return isinstance(fingerprint, float) and ON_ACCELERATOR <= fingerprint < 2 * ON_ACCELERATOR


def code_of(values: Sequence[Plain]) -> str:
    """The code of the bits of values: 18 bits of a CRC-32. All NaNs have the same.

    >>> code_of([1.0]) == code_of([1]), code_of([0.0]) == code_of([-0.0])
    (True, False)
    """
    crc = zlib.crc32(b"".join(map(_bytes_of, values)))
    return "".join(_ALPHABET[crc >> 6 * i & 63] for i in range(CODE))


def _bytes_of(value: Plain) -> bytes:
    if isinstance(value, dict):
        return json.dumps(_exact(value), sort_keys=True).encode()
    return struct.pack("<d", value) if value == value else _NAN


def _exact(value: Any) -> Any:
    """A value without what may be rounded otherwise on another machine."""
    if isinstance(value, dict):
        return {name: _exact(part) for name, part in value.items() if name != "rms"}
    return [_exact(part) for part in value] if isinstance(value, list) else value
