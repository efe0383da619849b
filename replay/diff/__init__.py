"""What changed between two recordings: the first difference, and what it can be blamed on.

In: two recordings, one that was resumed, or those of several ranks. Out: what differs, as data,
text and JSON. Open compare.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "columns",
    "compare",
    "ranks",
    "result",
    "resumes",
)
