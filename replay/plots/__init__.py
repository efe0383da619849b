"""The plot types: what each takes, how it is drawn, and how its windows are compared.

In come traces and opts; out go messages to visdom. Each type is one entry, a `PlotType`
(plot_type.py), beside its like in types/;
registry.py knows them all. visdom is not imported here: its client is handed to what draws.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "colours",
    "contents",
    "dates",
    "pictures",
    "plot_type",
    "registry",
    "thinning",
    "window",
)
