"""Events through meters into windows. No file, clock, socket or random number here.

In: definitions and events, or whole columns. Out: windows. Open engine.py first; column_replay.py
is the fast path.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "alarms",
    "column_replay",
    "engine",
    "left_out",
    "schedule",
    "window_builder",
)
