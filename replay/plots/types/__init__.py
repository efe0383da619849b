"""How each plot type is drawn, the types beside their like; ../registry.py knows them all.

In come traces and opts; out go messages to visdom. Open curves.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("bars", "curves", "histograms", "matrices", "panes", "plane")
