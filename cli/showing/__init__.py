"""Show the contents of recordings as tables.

In: paths and keys, or folders and expressions. Out: text for a terminal, JSON or CSV. Open
contents.py for one recording, runs.py for many.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("alarms", "console", "contents", "runs")
