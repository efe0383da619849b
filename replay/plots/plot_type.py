"""What an entry of the registry holds, and the groups of opts that entries share.

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
"""What a value can be: an array by its number of axes, or a string."""

ARRAYS = ("vector", "matrix", "3-D", "4-D")

Floats: TypeAlias = NDArray[np.float64]
Message: TypeAlias = dict[str, Any]
Traces: TypeAlias = Sequence[Trace]

Draw: TypeAlias = Callable[[Any, Traces, Message], Message]
"""Draws traces: (visdom's client, which only builds its message; traces; opts) to the message."""

Gather: TypeAlias = Callable[[str, Sequence[float], Sequence[Any], Mapping[str, Any]], list[Trace]]
"""Makes traces of all marks: (label, the marks' x, their values, opts); of values of one form."""

SideBySide: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, Any], set[str]], Message | None]
"""Puts two runs side by side: (golden content, obtained content, names of the traces that differ)
to the content of a plot of the difference, or None where there is nothing to draw."""


@dataclass(frozen=True)
class History:
    """How the values of all marks make what is drawn.

    Attributes:
        rank: of what is drawn, of `RANKS`.
        form: of a value; only values of one form are drawn together. None: it cannot be drawn.
        gather: makes the traces.
        is_curve: whether the traces are points (x, value), one a mark, which can be thinned.
    """

    rank: str
    form: Callable[[Any], Hashable]
    gather: Gather
    is_curve: bool = False


@dataclass(frozen=True)
class PlotType:
    """One way to draw what meters give: all that there is to say of it.

        >>> PlotType(
        ...     name="words", doc="a text", takes="a string", ranks=("text",), opts=PANE,
        ...     draw=lambda client, traces, opts: client.text(traces[0].y, opts=opts)[0],
        ...     shown_as="text",
        ... ).accumulates
        False

    Attributes:
        name: what a definition's `type` says.
        doc: one line: how visdom draws it.
        takes: one line: what the meter must give.
        ranks: the kinds of value that it takes, of `RANKS`.
        opts: the names of visdom's opts that it knows.
        condition: what a value of one of these ranks must be besides.
        draw: asks visdom's client for the message.
        shown_as: what visdom makes of it: plotly's type of trace, or `image` or `text`.
        history: how the values of all marks are drawn; None: the latest value is.
        side_by_side: how a golden and an obtained window are drawn in one plot; None: they are not.
        colour_opt: the opt that gives traces their colours, where windows are to agree on them.
        max_traces: how many meters share one window; None: any number.
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
    side_by_side: SideBySide | None = None
    colour_opt: str | None = None
    max_traces: int | None = None

    @property
    def accumulates(self) -> bool:
        """Whether every mark adds a point (x, value) to the meter's trace."""
        return self.history is not None and self.history.is_curve

    def fits(self, value: Any) -> bool:
        """Whether the type draws a value of one mark.

        >>> text = PlotType("words", "", "", ("text",), PANE, draw=None, shown_as="text")
        >>> text.fits("done"), text.fits(0.5)
        (True, False)
        """
        return rank(value) in self.ranks and self.condition(value)

    def check_opts(self, opts: Mapping[str, Any]) -> None:
        """Raise DefinitionError for an opt that this type does not know, naming the nearest."""
        for name in opts:
            if name not in self.opts:
                raise DefinitionError(
                    f"a {self.name} plot has no opt {name!r}{nearest(str(name), self.opts)} "
                    f"(flexrec plots {self.name} lists them)"
                )
        bins = opts.get("numbins", 1)
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
            raise DefinitionError(f"numbins must be a whole number of bins, got {bins!r}")
        weight = opts.get("smooth", 0)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < 1:
            raise DefinitionError(f"smooth must be a number from 0 to less than 1, got {weight!r}")
        for axis in "xyz":
            given = [opts.get(f"{axis}tick{end}") is not None for end in ("min", "max")]
            if given[0] != given[1]:
                raise DefinitionError(f"{axis}tickmin and {axis}tickmax go together: give both")


def rank(value: Any) -> str:
    """Which of `RANKS` a value is; `"5-D"` and so on where there are more axes, or its type.

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
    """The opts of these axes, such as `"xy"`."""
    what = ("type", "label", "tick", "tickmin", "tickmax", "tickvals", "ticklabels", "tickstep")
    return frozenset(axis + name for axis in letters for name in (*what, "tickfont"))


PANE = frozenset({"title", "width", "height", "inflate"})
LAYOUT = PANE | {
    *("marginleft", "marginright", "margintop", "marginbottom", "showlegend", "layoutopts")
}
XY = LAYOUT | axes("xy")
