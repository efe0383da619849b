"""Draw lines as text, for a terminal.

In: a recording and the name of a preset or key, or curves. Out: text. Open lines.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "lines",
    "text_plot",
)
