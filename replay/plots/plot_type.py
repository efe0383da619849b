"""PlotType, the type of the registry's entries, and the groups of opts that entries share.

Nothing is drawn, imported from visdom, read or written here.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import DefinitionError, nearest
from flexrec.replay.plots.window import Trace

RANKS = ("scalar", "vector", "matrix", "3-D", "4-D", "text")
"""The kinds of values: an array by its number of axes, or a string."""

ARRAYS = ("vector", "matrix", "3-D", "4-D")

Floats: TypeAlias = NDArray[np.float64]
Message: TypeAlias = dict[str, Any]
Traces: TypeAlias = Sequence[Trace]

Draw: TypeAlias = Callable[[Any, Traces, Message], Message]
"""Draws traces: (visdom's client, which only builds messages; traces; opts) → the message."""

Gather: TypeAlias = Callable[[str, Sequence[float], Sequence[Any], Mapping[str, Any]], list[Trace]]
"""Makes traces from all marks: (label, the marks' x, their values of one form, opts) → traces."""

SideBySide: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, Any], set[str]], Message | None]
"""Compares two windows: (golden content, obtained content, names of the traces that differ) → the
content of a plot of the difference, or None if there is nothing to draw."""

Limits: TypeAlias = Callable[[Traces, Mapping[str, Any]], tuple[float, float]]
"""(traces, opts) → the least and the greatest value that colours show."""


@dataclass(frozen=True)
class History:
    """How the values of all marks are combined into traces.

    Attributes:
        rank: the kind of the combined value, one of `RANKS`.
        form: gives the form of a value; values of one form are drawn together. None: not drawn.
        gather: makes the traces.
        is_curve: whether the traces are points (x, value), one per mark, which can be thinned.
        is_over_marks: whether the x axis shows the marks' x.
        is_joint: whether all traces are thinned together, to the same marks.
    """

    rank: str
    form: Callable[[Any], Hashable]
    gather: Gather
    is_curve: bool = False
    is_over_marks: bool = True
    is_joint: bool = False


@dataclass(frozen=True)
class PlotType:
    """One way to draw the results of meters.

        >>> PlotType(
        ...     name="words", doc="a text", takes="a string", ranks=("text",), opts=PANE,
        ...     draw=lambda client, traces, opts: client.text(traces[0].y, opts=opts)[0],
        ...     shown_as="text",
        ... ).accumulates
        False

    Attributes:
        name: the name in a definition's `type`.
        doc: one line that says how visdom draws it.
        takes: one line that says which results of a meter it draws.
        ranks: the kinds of values that it takes, of `RANKS`.
        opts: the names of the visdom opts that it has.
        condition: a further check of a value of these ranks.
        draw: gets the message from visdom's client.
        shown_as: the type of pane in visdom: plotly's type of trace, or `image` or `text`.
        history: how the values of all marks are drawn; None: only the latest value is drawn.
        keeps: the most values of earlier marks that are kept beside the latest, evenly spread.
        side_by_side: how a golden and an obtained window are drawn in one plot; None: not at all.
        colour_opt: the opt with the traces' colours, if windows should use the same colours.
        max_traces: the most meters in one window; None: any number.
        overlays: whether several runs share a window; else each has its own.
        rows: the names of the rows of a trace's matrix; empty if they have none.
        limits: the least and greatest value that colours show; windows of several runs share them.
        unit: that of its symmetric-log y axis, on which values are drawn at other places.
    """

    name: str
    doc: str
    takes: str
    ranks: tuple[str, ...]
    opts: frozenset[str]
    draw: Draw
    shown_as: str
    condition: Callable[[Any], bool] = lambda _: True
    history: History | None = None
    keeps: int = 0
    side_by_side: SideBySide | None = None
    colour_opt: str | None = None
    max_traces: int | None = None
    overlays: bool = True
    rows: tuple[str, ...] = ()
    limits: Limits | None = None
    unit: Callable[[Traces, Mapping[str, Any]], float | None] | None = None

    @property
    def accumulates(self) -> bool:
        """Whether every mark adds a point (x, value) to the meter's trace."""
        return self.history is not None and self.history.is_curve

    @property
    def has_lines(self) -> bool:
        """Whether its traces can be drawn as lines, as in a text plot."""
        history = self.history
        if history is None or not history.is_over_marks:
            return False
        return history.rank == "vector" or bool(self.rows)

    def fits(self, value: Any) -> bool:
        """Whether the type draws a value of one mark.

        >>> text = PlotType("words", "", "", ("text",), PANE, draw=None, shown_as="text")
        >>> text.fits("done"), text.fits(0.5)
        (True, False)
        """
        return rank(value) in self.ranks and self.condition(value)

    def check_opts(self, opts: Mapping[str, Any]) -> None:
        """Raise DefinitionError for an opt that this type does not have, naming the nearest."""
        for name in opts:
            if name not in self.opts:
                raise DefinitionError(
                    f"a {self.name} plot has no opt {name!r}{nearest(str(name), self.opts)} "
                    f"(flexrec plots {self.name} lists them)"
                )
        bins = opts.get("numbins", 1)
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
            raise DefinitionError(f"numbins must be a whole number of bins, got {bins!r}")
        most = opts.get("heat_above", 0)
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise DefinitionError(f"heat_above must be a whole number of lines, got {most!r}")
        guide = opts.get("guide", 0)
        if isinstance(guide, bool) or not isinstance(guide, (int, float)):
            raise DefinitionError(f"guide must be a number, got {guide!r}")
        weight = opts.get("smooth", 0)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < 1:
            raise DefinitionError(f"smooth must be a number from 0 to less than 1, got {weight!r}")
        for axis in "xyz":
            given = [opts.get(f"{axis}tick{end}") is not None for end in ("min", "max")]
            if given[0] != given[1]:
                raise DefinitionError(f"{axis}tickmin and {axis}tickmax go together: give both")


def rank(value: Any) -> str:
    """The kind of a value: one of `RANKS`; else `"5-D"` and so on for more axes; else its type.

    >>> rank(0.5), rank([1, 2]), rank("done"), rank({})
    ('scalar', 'vector', 'text', 'dict')
    """
    if isinstance(value, str):
        return "text"
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        return type(value).__name__
    if array.dtype.kind not in "biuf":
        return type(value).__name__ if array.dtype.kind == "O" else f"{array.dtype}"
    return RANKS[array.ndim] if array.ndim < RANKS.index("text") else f"{array.ndim}-D"


def axes(letters: str) -> frozenset[str]:
    """The opts of axes, given as letters such as `"xy"`."""
    what = ("type", "label", "tick", "tickmin", "tickmax", "tickvals", "ticklabels", "tickstep")
    return frozenset(axis + name for axis in letters for name in (*what, "tickfont"))


PANE = frozenset({"title", "width", "height", "inflate"})
LAYOUT = PANE | {
    *("marginleft", "marginright", "margintop", "marginbottom", "showlegend", "layoutopts")
}
XY = LAYOUT | axes("xy")
