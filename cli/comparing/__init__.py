"""The commands that compare: with a golden file, and recordings with each other.

In: what was said on the command line. Out: whether it is equal. Open checking.py or diffing.py.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "checking",
    "diffing",
)
