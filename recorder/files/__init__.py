"""Paths that are written: replaced whole or not at all, and locked meanwhile.

In: a path. Out: a file beside it that takes its place, or a lock. Open atomic_write.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "atomic_write",
    "lock",
)
