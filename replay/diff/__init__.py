"""Compare recordings: find the first difference, and its likely cause.

In: two recordings, one that was resumed, or those of several ranks. Out: the differences, as data,
text and JSON. Open compare.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "blame",
    "columns",
    "compare",
    "model",
    "ranks",
    "result",
    "resumes",
    "windows",
)
