"""Compare a trace, or a field, with the golden one: plain JSON in, differences out. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flexrec.recorder.errors import counted
from flexrec.replay.golden.model import ABSENT, Difference, Point, Points
from flexrec.replay.golden.tolerance import deviation
from flexrec.replay.plots.contents import Numbers, line_of, numbers

_DATA = ("x", "y", "z", "values", "labels")  # a trace's data; its other fields are settings


@dataclass(frozen=True)
class Tolerance:
    """The allowed difference of numbers: `atol + rtol * |golden|`."""

    rtol: float
    atol: float


def compare_trace(
    window: str,
    name: str,
    golden: Mapping[str, Any],
    obtained: Mapping[str, Any],
    tolerance: Tolerance,
) -> list[Difference]:
    """Compare two traces, except their names."""
    found = []
    if golden.get("type") != obtained.get("type"):
        kinds = golden.get("type", ABSENT), obtained.get("type", ABSENT)
        message = f"the trace is drawn as {kinds[1]!r}, the golden's as {kinds[0]!r}"
        found.append(Difference("type", window, name, "type", message, *kinds))
    fields = list(dict.fromkeys((*golden, *obtained)))
    if found:  # other types have other settings
        fields = [field for field in fields if field in _DATA]
    aligned = _aligned(window, name, golden, obtained, tolerance)
    found += aligned or []
    for field in fields:
        if field == "type" or (aligned is not None and field in ("x", "y")):
            continue
        old, new = golden.get(field, ABSENT), obtained.get(field, ABSENT)
        differences = compare_leaves(window, name, field, old, new, tolerance, x=golden.get("x"))
        if field in _DATA:
            differences = [
                replace(d, kind="values" if d.kind == "layout" else d.kind) for d in differences
            ]
        found += differences
    return found


def compare_leaves(
    window: str,
    trace: str | None,
    field: str,
    golden: Any,
    obtained: Any,
    tolerance: Tolerance,
    *,
    x: Any = None,
) -> list[Difference]:
    """Compare two JSON values, field by field; numbers within the tolerance."""
    if isinstance(golden, dict) and golden and obtained == ABSENT:
        obtained = {}  # so that the fields in it are named
    if isinstance(obtained, dict) and obtained and golden == ABSENT:
        golden = {}
    if isinstance(golden, dict) and isinstance(obtained, dict):
        differences = []
        for key in dict.fromkeys((*golden, *obtained)):
            pair = golden.get(key, ABSENT), obtained.get(key, ABSENT)
            differences += compare_leaves(window, trace, f"{field}.{key}", *pair, tolerance)
        return differences
    if isinstance(golden, list) and isinstance(obtained, list):
        return _lists(window, trace, field, golden, obtained, tolerance, x)
    a, b = numbers([golden]), numbers([obtained])
    if golden is not None and obtained is not None and a and b and a.shape == b.shape:
        differences = _numbers(window, trace, field, a, b, tolerance, None)
        lone = f"{shown(obtained)}, golden {shown(golden)}"
        return [
            replace(d, index=None, message=lone, kind="type" if d.kind == "type" else "layout")
            for d in differences
        ]
    if golden == obtained and isinstance(golden, bool) == isinstance(obtained, bool):
        return []
    message = f"{shown(obtained)}, golden {shown(golden)}"
    return [Difference("layout", window, trace, field, message, golden, obtained)]


def _lists(
    window: str,
    trace: str | None,
    field: str,
    golden: list[Any],
    obtained: list[Any],
    tolerance: Tolerance,
    x: Any,
) -> list[Difference]:
    a, b = numbers(golden), numbers(obtained)
    if a is not None and b is not None and a.shape == b.shape:
        return _numbers(window, trace, field, a, b, tolerance, x)
    if a is not None and b is not None and max(len(a.shape), len(b.shape)) > 1:
        shapes = [" by ".join(map(str, side.shape)) for side in (a, b)]
        message = f"{shapes[1]} values, golden {shapes[0]}"
        return [Difference("values", window, trace, field, message, a.shape, b.shape)]
    if len(golden) != len(obtained):
        return [_lengths(window, trace, field, golden, obtained)]
    differences = []
    for i, (old, new) in enumerate(zip(golden, obtained, strict=True)):
        differences += compare_leaves(window, trace, f"{field}[{i}]", old, new, tolerance)
    return differences


def _lengths(
    window: str, trace: str | None, field: str, golden: list[Any], obtained: list[Any]
) -> Difference:
    lengths = len(golden), len(obtained)
    unequal = (i for i, (a, b) in enumerate(zip(golden, obtained, strict=False)) if a != b)
    at = next(unequal, min(lengths))
    old, new = (side[at] if at < len(side) else ABSENT for side in (golden, obtained))
    return Difference(
        "missing" if lengths[1] < lengths[0] else "extra",
        window,
        trace,
        field,
        f"{counted(lengths[1], 'value')}, golden {lengths[0]:,}; they part at index {at}: "
        f"{shown(new)}, golden {shown(old)}",
        old,
        new,
        index=(at,),
        count=abs(lengths[0] - lengths[1]),
        total=max(lengths),
    )


def _aligned(
    window: str,
    name: str,
    golden: Mapping[str, Any],
    obtained: Mapping[str, Any],
    tolerance: Tolerance,
) -> list[Difference] | None:
    """Compare two lines of unequal length, point by point at equal x; None if x is not usable."""
    lengths = [len(y) for y in (golden.get("y"), obtained.get("y")) if isinstance(y, list)]
    if len(set(lengths)) < 2:
        return None
    a, b = line_of(golden), line_of(obtained)
    if a is None or b is None:
        return None
    xs = list(a), list(b)
    missing = [i for i, x in enumerate(xs[0]) if x not in b]
    extra = [i for i, x in enumerate(xs[1]) if x not in a]
    found = []
    if missing:
        points = Points(missing, (len(a),), xs[0], list(a.values()), ())
        found.append(_gone("missing", window, name, points, "missing"))
    if extra:
        points = Points(extra, (len(b),), xs[1], (), list(b.values()))
        found.append(_gone("extra", window, name, points, "not in the golden"))
    common = [x for x in xs[0] if x in b]
    ys = numbers([a[x] for x in common]), numbers([b[x] for x in common])
    if ys[0] is not None and ys[1] is not None:
        found += _numbers(window, name, "y", ys[0], ys[1], tolerance, common)
    return found


def _gone(kind: str, window: str, name: str, points: Points, what: str) -> Difference:
    first, count, total = points.at(0), len(points), points.shape[0]
    value = first.golden if kind == "missing" else first.obtained
    message = f"{_of(count, total)} {_verb(count)} {what}, first at {place(first)}: {shown(value)}"
    return Difference(
        kind, window, name, "points", message, first.golden, first.obtained,
        first.index, first.x, count=count, total=total, points=points,
    )  # fmt: skip


def _numbers(
    window: str,
    trace: str | None,
    field: str,
    a: Numbers,
    b: Numbers,
    tolerance: Tolerance,
    x: Any,
) -> list[Difference]:
    """Compare two lists of numbers of the same shape."""
    off = deviation(a, b, rtol=tolerance.rtol, atol=tolerance.atol)
    if off is None:
        return []
    xs = x if isinstance(x, list) and len(x) == len(a.leaves) and field != "x" else None
    total = len(a.leaves)
    found = []
    if len(off.kinds):
        points = Points(off.kinds.tolist(), a.shape, xs, a.leaves, b.leaves)
        first = points.at(0)
        now = "an integer" if isinstance(first.obtained, int) else "a float"
        message = f"{_of(len(points), total)} changed type, first at {place(first)}: {_pair(first)}"
        found.append(_at(points, "type", window, trace, field, f"{message}, now {now}"))
    if len(off.where):
        points = Points(off.where.tolist(), a.shape, xs, a.leaves, b.leaves)
        first = points.at(0)
        message = (
            f"{_of(len(points), total)} {_verb(len(points), 'differ')}, first at {place(first)}: "
        )
        message += _pair(first)
        if off.max_abs is not None and off.max_rel is not None:
            message += f"; largest error {off.max_abs:.3g} absolute, {off.max_rel:.3g} relative"
        differences = _at(points, "values", window, trace, field, message)
        found.append(replace(differences, max_abs=off.max_abs, max_rel=off.max_rel))
    return found


def _at(
    points: Points, kind: str, window: str, trace: str | None, field: str, message: str
) -> Difference:
    first = points.at(0)
    return Difference(
        kind, window, trace, field, message, first.golden, first.obtained, first.index, first.x,
        count=len(points), total=len(points.golden), points=points,
    )  # fmt: skip


def place(point: Point) -> str:
    """The position of a point: `index 3 (x = 30)`, or `[2, 1]` in a matrix."""
    if len(point.index) > 1:
        return f"[{', '.join(map(str, point.index))}]"
    return f"index {point.index[0]}" + (f" (x = {point.x:.10g})" if _is_number(point.x) else "")


def _pair(point: Point) -> str:
    old, new = shown(point.golden), shown(point.obtained)
    return f"{new}, golden {old}"


def _of(count: int, total: int) -> str:
    return f"{count} of {total} point{'' if total == 1 else 's'}"


def _verb(count: int, verb: str = "") -> str:
    if verb:
        return f"{verb}s" if count == 1 else verb
    return "is" if count == 1 else "are"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """Format a value for a report: numbers with all digits, a gap by name, the rest as JSON."""
    if value is None:
        return "a gap (NaN)"
    if value == ABSENT:
        return "nothing"
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
