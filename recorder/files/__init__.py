"""Write files atomically, and lock a path while it is written.

In: a path. Out: a temporary file beside it that replaces it, or a lock. Open atomic_write.py
first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "atomic_write",
    "cache",
    "descriptors",
    "flock",
    "folder_write",
    "lock",
    "names",
    "remote",
    "rename",
)
