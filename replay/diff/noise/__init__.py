"""Judge a run by the spread of runs that are the same except for rounding or chance.

In: a run, and references. Out: what lies beyond their spread, since which step, and in which layer
first; what differs though all references agree. Open spread.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "alike",
    "judge",
    "spread",
)
