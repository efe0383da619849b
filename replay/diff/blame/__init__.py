"""What a difference is blamed on: by the trace of a step, or by what statistics there are.

In: what differs at the first step at which anything does. Out: the stage, the layer and why. Open
by_trace.py first; docs/diff.md explains the rule.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "by_statistics",
    "by_trace",
    "places",
    "traces",
)
