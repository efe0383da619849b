"""Merge, verify and repair recordings.

In: paths of recordings. Out: a new recording, or a report on a damaged one. Open merge.py
or repair.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "merge",
    "repair",
)
