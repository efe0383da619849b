"""Find the likely cause of a difference, from the trace of a step or from recorded statistics.

In: the differences at the first step that differs. Out: the stage, the layer and the cause. Open
by_trace.py first; docs/diff.md explains the rules.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "by_statistics",
    "by_trace",
    "places",
    "settings",
    "traces",
)
