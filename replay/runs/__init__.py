"""Many recordings: which there are, what each says of itself, and how they compare.

In: folders, patterns and files. Out: rows of a table, chosen and sorted by expressions; and windows
of groups of runs. Open collection.py first. Until values are read, nothing here imports numpy or
h5py, so that a table of many runs is quick.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("collection", "comparing", "scan", "table", "tags", "text_table", "workers")
