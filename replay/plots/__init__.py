"""The plot types: what each takes, how it is drawn, and how its windows are compared.

In: traces and opts. Out: messages to visdom. Each type is one entry, a `PlotType` (plot_type.py),
in types/; registry.py lists them all. visdom is not imported here: draw functions are given its
client.
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
