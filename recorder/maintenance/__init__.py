"""Work on whole recordings: merge, verify, repair.

In: paths of recordings. Out: another recording, or what is wrong with one. Open repair.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "merge",
    "repair",
)
