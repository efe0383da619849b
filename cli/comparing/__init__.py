"""The commands that compare: with a golden file, and recordings with each other.

In: the command line's arguments. Out: whether they are equal. Open checking.py, running.py or
diffing.py.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "checking",
    "diffing",
    "running",
)
