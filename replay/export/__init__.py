"""Export recordings: as CSV and Parquet, to TensorBoard, and as a summary of each key.

In: a recording; or many, as a dataset. Out: rows, files and summaries. Open tables.py first, and
dataset.py for many.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "dataset",
    "formulas",
    "keys",
    "run_table",
    "summary",
    "tables",
    "tensorboard",
)
