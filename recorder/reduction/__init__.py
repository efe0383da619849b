"""What meters remember of a value, so that it can be recorded in the value's place.

In: a meter's name and arguments, and values. Out: small tuples, the same as the meter's own.
Open reductions.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "class_counts",
    "reducer",
    "reductions",
    "validation",
)
