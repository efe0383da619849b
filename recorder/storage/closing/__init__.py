"""Rewrite a recording in the closed layout, when it is closed, repaired or merged.

In: a store. Out: a file in the closed layout, with a dataset for each part of a column, or a table
of many keys of numbers. Open compact.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("compact",)
