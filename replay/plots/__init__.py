"""The plot types: what each takes, how it is drawn, and how its windows are compared.

In come traces and opts; out go messages to visdom. Each type is one entry, a `PlotType`
(plot_type.py), beside its like (curves, plane, bars, matrices, histograms, panes); registry.py
knows them all. visdom is not imported here: its client is handed to what draws.
"""

from flexrec.replay.plots.colours import CYCLE, ramp
from flexrec.replay.plots.plot_type import RANKS, MisfitError, PlotType, rank
from flexrec.replay.plots.registry import (
    TYPES,
    plot_info,
    plot_type,
    plot_types,
    side_by_side_of,
)

__all__ = [
    "CYCLE",
    "RANKS",
    "TYPES",
    "MisfitError",
    "PlotType",
    "plot_info",
    "plot_type",
    "plot_types",
    "ramp",
    "rank",
    "side_by_side_of",
]
