"""The plot types. To add one, write its entry in one of the lists that are joined here."""

import textwrap
from collections.abc import Mapping
from typing import Any, overload

from flexrec.recorder.errors import DefinitionError, nearest
from flexrec.replay.plots.plot_type import PlotType, SideBySide
from flexrec.replay.plots.types.bars import BARS
from flexrec.replay.plots.types.curves import CURVES
from flexrec.replay.plots.types.fans import FANS
from flexrec.replay.plots.types.heat import HEAT
from flexrec.replay.plots.types.histograms import HISTOGRAMS
from flexrec.replay.plots.types.matrices import MATRICES
from flexrec.replay.plots.types.panes import PANES
from flexrec.replay.plots.types.plane import PLANES

TYPES: dict[str, PlotType] = {
    kind.name: kind
    for kind in (*CURVES, *PLANES, *BARS, *MATRICES, *HISTOGRAMS, *FANS, HEAT, *PANES)
}


@overload
def plot_types() -> list[str]: ...
@overload
def plot_types(name: str) -> str: ...
def plot_types(name: str | None = None) -> list[str] | str:
    """The names of all plot types, in alphabetical order; given a name, the same as `plot_info`.

    >>> plot_types()[:3]
    ['bar', 'boxplot', 'contour']
    """
    return sorted(TYPES) if name is None else plot_info(name)


def plot_type(name: str) -> PlotType:
    """The plot type of that name, in any letter case.

        >>> plot_type("Line").name
        'line'

    Raises:
        DefinitionError: no such type.
    """
    found = TYPES.get(name.lower()) if isinstance(name, str) else None
    if found is None:
        raise DefinitionError(
            f"no plot type {name!r}{nearest(str(name), TYPES)} (flexrec plots lists them)"
        )
    return found


def plot_info(name: str) -> str:
    """Describe a plot type in a few lines: how it is drawn, what it takes, and its opts.

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


def crowded(kind: PlotType, opts: Mapping[str, Any], lines: int) -> tuple[PlotType, dict[str, Any]]:
    """The type and opts of a plot of this many lines: `heat` if they are more than `heat_above`.

    >>> kind, opts = crowded(plot_type("line"), {"heat_above": 12, "ytype": "log"}, 13)
    >>> kind.name, opts
    ('heat', {'ztype': 'log'})
    """
    own = {name: item for name, item in opts.items() if name != "heat_above"}
    if lines <= opts.get("heat_above", lines):
        return kind, own
    moved = {"ylabel": "zlabel", "ytype": "ztype"}  # colours show what the y axis showed
    own = {moved.get(name, name): item for name, item in own.items()}
    return HEAT, {name: item for name, item in own.items() if name in HEAT.opts}


def side_by_side_of(shown_as: str) -> SideBySide | None:
    """The `side_by_side` of the plot type with this `shown_as`; None: it has none.

    >>> side_by_side_of("pie") is None
    True
    """
    return next((kind.side_by_side for kind in TYPES.values() if kind.shown_as == shown_as), None)
