"""Reduce values to meters' states, which are recorded in place of the values.

In: a meter's name and arguments, and values. Out: small tuples, identical to the meter's own
state. Open reductions.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "class_counts",
    "reducer",
    "reductions",
    "validation",
)
