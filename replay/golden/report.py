"""Describe a comparison as text and as JSON. Nothing is compared here."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from flexrec.recorder.errors import counted
from flexrec.replay.golden.model import Comparison, Difference, Point
from flexrec.replay.golden.trace import place, shown

_WINDOWS, _LINES = 10, 4  # the windows of a short report, and lines for each


def report_text(comparison: Comparison, *, full: bool = False, hint: str = "") -> str:
    """Describe the differences, window by window, with a line for each.

        >>> from flexrec.replay import compare, snapshot
        >>> print(report_text(compare(snapshot([]), snapshot([]))))
        equal: 0 windows, 0 traces, 0 points (rtol 1e-09, atol 0)

    Args:
        comparison: from `compare`.
        full: list every difference, and every point that differs; otherwise the first few windows
            and lines, and the number of the others.
        hint: how to see the others.
    """
    how = f" ({hint})" if hint else ""
    tolerance = f"(rtol {comparison.rtol:g}, atol {comparison.atol:g})"
    if comparison.equal:
        counts = [
            counted(count, what)
            for count, what in (
                (comparison.windows, "window"),
                (comparison.traces, "trace"),
                (comparison.points, "point"),
            )
        ]
        return f"equal: {', '.join(counts)} {tolerance}"
    groups = [
        (window, list(found))
        for window, found in groupby(comparison.differences, key=lambda d: d.window)
    ]
    named = sum(1 for window, _ in groups if window)
    count = len(comparison.differences)
    lines = [f"{counted(count, 'difference')} in {counted(named, 'window')} {tolerance}"]
    for window, found in groups if full else groups[:_WINDOWS]:
        lines.append(f"window {window}:" if window else "as a whole:")
        lines += _window_lines(found, full, how)
    if not full and len(groups) > _WINDOWS:
        lines.append(f"and {counted(len(groups) - _WINDOWS, 'more window')}{how}")
    return "\n".join(lines)


def report_json(comparison: Comparison, *, full: bool = False) -> dict[str, Any]:
    """Convert the comparison to plain JSON values.

        >>> from flexrec.replay import compare, snapshot
        >>> report_json(compare(snapshot([]), snapshot([])))["equal"]
        True

    Args:
        comparison: from `compare`.
        full: add `points`, every point of every difference.

    Returns:
        `equal`, `rtol`, `atol`; `windows`, `traces`, `points`: their numbers in the golden file;
        and `differences`: a table for each, with the fields of `Difference`. A gap is null, and so
        is an error relative to 0.
    """
    return {
        "equal": comparison.equal,
        "rtol": comparison.rtol,
        "atol": comparison.atol,
        "windows": comparison.windows,
        "traces": comparison.traces,
        "points": comparison.points,
        "differences": [_table(difference, full) for difference in comparison.differences],
    }


def _window_lines(found: Sequence[Difference], full: bool, how: str) -> Iterator[str]:
    for difference in found if full else found[:_LINES]:
        name = f"trace {difference.trace}" if difference.trace is not None else ""
        where = ", ".join(part for part in (name, difference.field) if part)
        yield f"  {difference.kind:<9} {f'{where}: ' if where else ''}{difference.message}"
        if full and len(difference.points) > 1:
            yield from (f"      {_point_line(point)}" for point in difference.points)
    if not full and len(found) > _LINES:
        yield f"  and {len(found) - _LINES} more{how}"


def _point_line(point: Point) -> str:
    line = f"{place(point)}: {shown(point.obtained)}, golden {shown(point.golden)}"
    if isinstance(point.golden, float | int) and isinstance(point.obtained, float | int):
        line += f"; error {abs(point.obtained - point.golden):.3g}"
    return line


def _table(difference: Difference, full: bool) -> dict[str, Any]:
    table = {
        name: _plain(getattr(difference, name))
        for name in Difference.__dataclass_fields__
        if name != "points"
    }
    if full:
        table["points"] = [
            {name: _plain(getattr(point, name)) for name in Point.__dataclass_fields__}
            for point in difference.points
        ]
    return table


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value
