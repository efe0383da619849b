"""The recording format: read recordings, and compact live files. Only here are datasets named.

In: an untrusted HDF5 file. Out: a live or closed store with its events, columns and marks; or a
live file compacted into a closed one. Open format.py first, then store.py.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "arrays",
    "closing",
    "columns",
    "follow",
    "format",
    "journal",
    "open_store",
    "series",
    "store",
    "summary",
)
