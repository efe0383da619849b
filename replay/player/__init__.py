"""Play recordings: finished ones at once, growing ones as they grow.

In: recordings and definitions. Out: windows, into a sink. Open player.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "alarms",
    "follow",
    "player",
)
