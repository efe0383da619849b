"""The plot types as data: what each takes, and which of visdom's opts it knows.

Nothing is drawn, imported from visdom, read or written here.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flexrec.recorder.errors import DefinitionError, nearest

__all__ = ["RANKS", "PlotType", "plot_info", "plot_type", "plot_types", "rank"]

RANKS = ("scalar", "vector", "matrix", "3-D", "4-D", "text")
"""What a value can be: an array by its number of axes, or a string."""


@dataclass(frozen=True)
class PlotType:
    """One way to draw what meters give.

        >>> plot_type("line").accumulates
        True

    Attributes:
        name: what a definition's `type` says.
        doc: one line: how visdom draws it.
        takes: one line: what the meter must give.
        ranks: the kinds of value that it takes, of `RANKS`.
        accumulates: True where every mark adds a point (x, value) to the meter's trace; False
            where the window shows the latest value only.
        history: the rank of what is drawn, where that is made of the values of all marks in
            another way; None otherwise.
        max_traces: how many meters share one window; None: any number.
        opts: the names of visdom's opts that it knows.
    """

    name: str
    doc: str
    takes: str
    ranks: tuple[str, ...]
    opts: frozenset[str]
    accumulates: bool = False
    history: str | None = None
    max_traces: int | None = None

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
        for axis in "xyz":
            given = [opts.get(f"{axis}tick{end}") is not None for end in ("min", "max")]
            if given[0] != given[1]:
                raise DefinitionError(f"{axis}tickmin and {axis}tickmax go together: give both")


def plot_types() -> list[str]:
    """The names of all plot types, in alphabetical order.

    >>> plot_types()[:3]
    ['bar', 'boxplot', 'contour']
    """
    return sorted(_TYPES)


def plot_type(name: str) -> PlotType:
    """The plot type of that name, in any letter case.

        >>> plot_type("Line").name
        'line'

    Raises:
        DefinitionError: no such type.
    """
    found = _TYPES.get(name.lower()) if isinstance(name, str) else None
    if found is None:
        raise DefinitionError(
            f"no plot type {name!r}{nearest(str(name), _TYPES)} (flexrec plots lists them)"
        )
    return found


def plot_info(name: str) -> str:
    """What the plot type takes, how it is drawn, and its opts: text of a few lines.

        >>> print(plot_info("pie").splitlines()[0])
        pie: a pie chart

    Raises:
        DefinitionError: no such type.
    """
    kind = plot_type(name)
    shown = "every mark adds to it" if kind.history else "shows the latest value"
    shown = "every mark adds a point" if kind.accumulates else shown
    traces = {None: "any number of meters", 1: "one meter a window", 2: "two meters"}
    lines = (
        f"{kind.name}: {kind.doc}",
        f"  takes   {kind.takes}",
        f"  meters  {traces[kind.max_traces]}; {shown}",
        f"  opts    {', '.join(sorted(kind.opts))}",
    )
    return "\n".join(textwrap.fill(line, 100, subsequent_indent=" " * 10) for line in lines)


def rank(value: Any) -> str:
    """Which of `RANKS` a value is; an array of five axes or more is `"5-D"` and so on.

    >>> rank(0.5), rank([1, 2]), rank("done")
    ('scalar', 'vector', 'text')
    """
    if isinstance(value, str):
        return "text"
    axes = np.ndim(value)
    return RANKS[axes] if axes < RANKS.index("text") else f"{axes}-D"


def _axes(letters: str) -> frozenset[str]:
    what = ("type", "label", "tick", "tickmin", "tickmax", "tickvals", "ticklabels", "tickstep")
    return frozenset(axis + name for axis in letters for name in (*what, "tickfont"))


_PANE = frozenset({"title", "width", "height", "inflate"})
_LAYOUT = _PANE | {
    *("marginleft", "marginright", "margintop", "marginbottom", "showlegend", "layoutopts")
}
_XY = _LAYOUT | _axes("xy")
_CURVES = _XY | {
    *("legend", "markersymbol", "markersize", "markercolor", "markerborderwidth"),
    *("linecolor", "dash", "fillarea", "traceopts", "webgl"),
}
_COLOURS = frozenset({"colormap", "xmin", "xmax"})
_DUAL = _PANE | {
    *("name_y1", "name_y2", "color_title_y1", "color_tick_y1", "color_title_y2"),
    *("color_tick_y2", "side", "showlegend", "top", "bottom", "right", "left"),
}
_ARRAYS = ("vector", "matrix", "3-D", "4-D")


_TYPES = {
    kind.name: kind
    for kind in (
        PlotType(
            name="line",
            doc="a line for each meter, over the marks' x",
            takes="a number at every mark; NaN and infinities draw a gap",
            ranks=("scalar",),
            opts=_CURVES | {"markers"},
            accumulates=True,
        ),
        PlotType(
            name="scatter",
            doc="a dot for each mark, in a colour for each meter",
            takes="a number at every mark",
            ranks=("scalar",),
            opts=_CURVES | {"mode"},
            accumulates=True,
        ),
        PlotType(
            name="stem",
            doc="an upright from zero to the value for each mark",
            takes="a number at every mark",
            ranks=("scalar",),
            opts=_CURVES,
            accumulates=True,
        ),
        PlotType(
            name="dual_axis_lines",
            doc="two lines, the second with a y axis of its own on the right",
            takes="a number at every mark, from two meters",
            ranks=("scalar",),
            opts=_DUAL,
            accumulates=True,
            max_traces=2,
        ),
        PlotType(
            name="bar",
            doc="bars, grouped by position (or stacked), in a colour for each meter",
            takes="the heights (n,), or one number",
            ranks=("scalar", "vector"),
            opts=_XY | {"legend", "rownames", "stacked"},
        ),
        PlotType(
            name="histogram",
            doc="how often values fall into each bin; meters share the bins",
            takes="samples of any shape; or heights (n,) with the bins' centres as the trace's x",
            ranks=_ARRAYS,
            opts=_XY | {"legend", "numbins", "stacked"},
        ),
        PlotType(
            name="histograms",
            doc="histograms over time: a column for each mark, the colour for how often",
            takes="samples (n,) at every mark; all marks share the bins",
            ranks=("vector",),
            opts=_XY | _COLOURS | {"numbins"},
            history="matrix",
            max_traces=1,
        ),
        PlotType(
            name="plane",
            doc="a dot for each mark at a place of its own, coloured by the mark's x",
            takes="a pair (x, y) at every mark",
            ranks=("vector",),
            opts=_LAYOUT
            | _axes("xy")
            | {"legend", "markersize", "colormap", "mode", "zlabel", "ztype"},
            history="vector",
        ),
        PlotType(
            name="boxplot",
            doc="median, quartiles, whiskers and outliers, a box for each meter",
            takes="samples of any shape",
            ranks=_ARRAYS,
            opts=_XY | {"legend"},
        ),
        PlotType(
            name="pie",
            doc="a pie chart",
            takes="the slices (n,) of one meter, named by legend; or a number from each meter",
            ranks=("scalar", "vector"),
            opts=_LAYOUT | {"legend"},
        ),
        PlotType(
            name="heatmap",
            doc="a colour for each cell; row 0 at the top (at the bottom where columns have an x)",
            takes="a matrix (rows, columns), its columns at the trace's x where it has one",
            ranks=("matrix",),
            opts=_XY | _COLOURS | {"columnnames", "rownames", "nancolor"},
            max_traces=1,
        ),
        PlotType(
            name="contour",
            doc="lines of equal value",
            takes="a matrix (rows, columns) of at least 2 by 2",
            ranks=("matrix",),
            opts=_XY | _COLOURS,
            max_traces=1,
        ),
        PlotType(
            name="surf",
            doc="a surface in three dimensions that the mouse turns",
            takes="a matrix (rows, columns) of at least 2 by 2",
            ranks=("matrix",),
            opts=_LAYOUT | _axes("xyz") | _COLOURS,
            max_traces=1,
        ),
        PlotType(
            name="image",
            doc="a picture",
            takes="(height, width) or (channels, height, width), channels 1, 3 or 4 (with alpha); "
            "integers 0 to 255, or floats 0 to 1, -1 to 1 or 0 to 255",
            ranks=("matrix", "3-D"),
            opts=_PANE | {"caption", "jpgquality"},
            max_traces=1,
        ),
        PlotType(
            name="images",
            doc="pictures side by side, nrow (8) a row, padding (2) pixels around each",
            takes="(batch, height, width) or (batch, channels, height, width), values as for image",
            ranks=("3-D", "4-D"),
            opts=_PANE | {"caption", "jpgquality", "nrow", "padding"},
            max_traces=1,
        ),
        PlotType(
            name="text",
            doc="the text as it is: HTML in it is shown, not obeyed",
            takes="a string; its line breaks are kept",
            ranks=("text",),
            opts=_PANE,
            max_traces=1,
        ),
    )
}
