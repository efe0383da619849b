"""How many runs compare: plots of all, means of groups, and what differs from one of them.

In: paths. Out: windows, or differences. Open playing.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("bands", "diffs", "playing")
