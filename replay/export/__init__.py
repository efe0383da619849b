"""Export recordings: as CSV and Parquet, to TensorBoard, and as a summary of each key.

In: a recording. Out: rows, files and summaries. Open tables.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "formulas",
    "keys",
    "summary",
    "tables",
    "tensorboard",
)
