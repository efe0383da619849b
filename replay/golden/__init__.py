"""Compare plots, and training runs, with golden files.

In: windows and the path of a golden file. Out: the differences, as text and as JSON. Open check.py
first; run/ is about training runs.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "check",
    "compare",
    "report",
    "run",
    "snapshot",
    "sources",
    "visual",
)
