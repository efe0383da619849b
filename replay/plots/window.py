"""Windows and their traces as plain data: no visdom, no files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flexrec.recorder.errors import counted, listed

_BETWEEN = re.compile(r"[_/\- ]+")


@dataclass(frozen=True)
class Trace:
    """One named line, bar series, matrix, image or text of a window.

    Attributes:
        name: the name in the legend.
        y: a line's values (n,); a bar's heights (n,); a matrix (rows, columns); an image
            (3, height, width) or (1, height, width); images (batch, channels, height, width);
            a text as str.
        x: a line's positions (n,), or None if the plot type has none.
        marks: the marks' positions (n,) of a `plane`, which are drawn as colour.
        rows: the positions of a matrix's rows.
        pale: whether it holds the original values of the next trace, a smoothed line.
        run: the name of its run, if a window shows several; the trace's name begins with it.
        band: the lower and the upper edge (n,) of a band that is shaded around a line; NaN: none.
        note: what the legend says behind the name.
        muted: whether a line is grey and not in the legend: one of many that others stand out from.
        phase: the phase that it is of, such as train, if its meter's definition says so.
        earlier: (x, y) of earlier marks, in order, for sinks that can show a picture's history.
    """

    name: str
    y: Any
    x: Any = None
    marks: Any = None
    rows: Any = None
    run: str | None = None
    pale: bool = False
    band: tuple[Any, Any] | None = None
    note: str = ""
    muted: bool = False
    phase: str = ""
    earlier: tuple[tuple[float, Any], ...] = ()


@dataclass(frozen=True, repr=False)
class Window:
    """One visdom window.

    Attributes:
        win: visdom's window id, made from the plot's name, and so the same in every run.
        env: the visdom environment, or None for the sink's default.
        type: the plot type's name, one of `plot_types()`.
        traces: in the order of the legend.
        opts: visdom's `opts` (title, xlabel, width, …), plain JSON values only.
    """

    win: str
    env: str | None
    type: str
    traces: tuple[Trace, ...]
    opts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        names = listed((trace.name or "unnamed" for trace in self.traces), most=4)
        return f"<Window {self.win!r}: {self.type}, {counted(len(self.traces), 'trace')} ({names})>"

    @property
    def title(self) -> str:
        """The title of the window."""
        return str(self.opts.get("title", self.win))


def legend_names(traces: Sequence[Trace], title: str) -> list[str]:
    """The traces' names without words at their ends that all share with each other and the title.

    The title of a window of one run may begin with the run's name: then the names leave it out.

    >>> legend_names([Trace("train_loss", []), Trace("test_loss", [])], "Loss")
    ['train', 'test']
    """
    said = {word.lower() for word in _BETWEEN.split(title)}
    is_titled = len({t.run for t in traces}) == 1 and title.startswith(f"{traces[0].run}: ")
    runs = ["" if is_titled else trace.run or "" for trace in traces]
    names = [t.name.removeprefix(run).lstrip() for t, run in zip(traces, runs, strict=True)]
    if any({word.lower() for word in _BETWEEN.split(name)} <= said for name in names):
        return [trace.name for trace in traces]
    for end in (-1, 0):
        while True:
            parts = [_BETWEEN.split(name) for name in names]
            words = {part[end].lower() for part in parts if len(part) > 1}
            if any(len(part) == 1 for part in parts) or len(words) != 1 or not words <= said:
                break
            (word,) = words
            kept = slice(0, -len(word)) if end else slice(len(word), None)
            names = [name[kept].strip("_/- ") for name in names]
    return [f"{run} {name}".strip() for run, name in zip(runs, names, strict=True)]


def equal(a: Window, b: Window) -> bool:
    """Whether two windows are exactly equal; NaN equals NaN."""
    return (
        (a.win, a.env, a.type, dict(a.opts)) == (b.win, b.env, b.type, dict(b.opts))
        and len(a.traces) == len(b.traces)
        and all(
            _looks(s) == _looks(t)
            and (s.band is None) == (t.band is None)
            and all(map(_same, s.band or (), t.band or ()))
            and all(
                _same(getattr(s, part), getattr(t, part)) for part in ("x", "y", "marks", "rows")
            )
            and [x for x, _ in s.earlier] == [x for x, _ in t.earlier]
            and all(_same(y, z) for (_, y), (_, z) in zip(s.earlier, t.earlier, strict=True))
            for s, t in zip(a.traces, b.traces, strict=True)
        )
    )


def _looks(trace: Trace) -> tuple[Any, ...]:
    return (trace.name, trace.run, trace.pale, trace.note, trace.muted, trace.phase)


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None or isinstance(a, str) or isinstance(b, str):
        return type(a) is type(b) and bool(a == b)
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))


def says(title: str, name: str) -> bool:
    """Whether a title has a name, as whole words.

    >>> says("Test loss", "loss"), says("train_loss", "loss"), says("Best", "b")
    (True, True, False)
    >>> says("Best", ""), says("", "")
    (True, True)
    """
    whole = rf"(?<![^\W_]){re.escape(name)}(?![^\W_])"
    return not name or re.search(whole, title, re.I) is not None
