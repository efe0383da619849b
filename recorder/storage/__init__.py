"""The recording format: the only folder that knows what datasets are called.

In: an untrusted HDF5 file. Out: a store, live or closed, with its events, columns and marks; and a
live file compacted into a closed one. Open format.py first, then store.py.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "arrays",
    "columns",
    "compact",
    "follow",
    "format",
    "journal",
    "open_store",
    "series",
    "store",
)
