"""Read the content of a window in visdom's environment files.

Traces by name, lines as points, lists of numbers. Nothing is drawn or compared here.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from types import NoneType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Number: TypeAlias = float | int | None
"""A JSON number; None is a gap, which equals only another gap."""

_GREATEST = int(sys.float_info.max)


@dataclass(frozen=True)
class Numbers:
    """A rectangular JSON list of numbers: its leaves in order, and its shape."""

    leaves: list[Number]
    shape: tuple[int, ...]
    kinds: frozenset[type]
    """The types of the leaves: int, float and NoneType."""

    @cached_property
    def array(self) -> NDArray[np.float64]:
        """The leaves (n,), with NaN for None; computed only if two lists differ."""
        return np.array(self.leaves, np.float64)


def numbers(value: Any) -> Numbers | None:
    """The list as Numbers; None if it is not a list, is ragged, or holds other values.

    >>> numbers([[1, None], [0.5, 2]]).shape
    (2, 2)
    >>> numbers(["1"]) is None
    True
    """
    if not isinstance(value, list):
        return None
    leaves: list[Any] = value
    shape: tuple[int, ...] = (len(leaves),)
    while leaves and isinstance(leaves[0], list):
        widths = {len(row) if isinstance(row, list) else -1 for row in leaves}
        if len(widths) > 1:
            return None
        shape += (widths.pop(),)
        leaves = list(chain.from_iterable(leaves))
    kinds = frozenset(map(type, leaves))
    if not kinds <= {int, float, NoneType}:
        return None
    if int in kinds and any(type(leaf) is int and abs(leaf) > _GREATEST for leaf in leaves):
        return None
    return Numbers(leaves, shape, kinds)


def named(traces: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Traces by name, or by type if unnamed; the second of the same name is `name #2`."""
    found: dict[str, Mapping[str, Any]] = {}
    for trace in traces:
        name = base = str(trace.get("name") or trace.get("type") or "trace")
        count = 1
        while name in found:
            count += 1
            name = f"{base} #{count}"
        found[name] = trace
    return found


def line_of(trace: Mapping[str, Any]) -> dict[Any, Any] | None:
    """{x: y} of a trace of points; None if an x is a gap or is repeated."""
    x, y = numbers(trace.get("x")), numbers(trace.get("y"))
    if x is None or y is None or len(x.shape) > 1 or x.shape != y.shape:
        return None
    line = dict(zip(x.leaves, y.leaves, strict=True))
    return line if len(line) == len(x.leaves) and None not in line else None


def aligned_lines(
    golden: Sequence[Mapping[str, Any]], obtained: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[list[Any], list[Any], list[Any]]]:
    """{trace: (x, golden y, obtained y)} for lines in both windows, at the x that both have."""
    found = {}
    others = named(obtained)
    for name, trace in named(golden).items():
        a, b = line_of(trace), line_of(others.get(name, {}))
        common = [x for x in a if x in b] if a and b else []
        if a and b and common:
            found[name] = (common, [a[x] for x in common], [b[x] for x in common])
    return found
