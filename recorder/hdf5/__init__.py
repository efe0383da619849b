"""Read untrusted HDF5 files, and compress chunks. Nothing here depends on the recording format.

In: a path. Out: attributes and rows of datasets, or a RecordingError. Open file.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "chunks",
    "dataset",
    "deflate",
    "errors",
    "file",
    "interrupts",
    "superblock",
)
