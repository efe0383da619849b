"""How each plot type is drawn, similar types in one file; ../registry.py lists them all.

In: traces and opts. Out: messages to visdom. Open curves.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("bars", "curves", "fans", "heat", "histograms", "matrices", "panes", "plane")
