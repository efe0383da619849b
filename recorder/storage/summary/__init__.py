"""The summary at the start of a file: what a table of runs shows, in one read without HDF5.

In: a file that is made, or a store that is closed. Out: a short JSON text; and that text again,
from a file's first bytes. It is a claim of the file about itself: nothing but tables of runs uses
it. Open head.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("contents", "head", "statistics")
