"""What the commands print of recordings: tables, and plots as text.

In: paths, keys and patterns. Out: text for a terminal. Open contents.py first, for one recording,
or runs.py, for many.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("contents", "drawing", "runs", "text_plot")
