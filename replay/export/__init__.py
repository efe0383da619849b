"""Export recordings: as CSV and Parquet, to other trackers, and as a summary of each key.

In: a recording; or many, as a dataset. Out: rows, files and summaries. Open tables.py first, for
many dataset.py, and for other trackers tracked.py.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "dataset",
    "formulas",
    "keys",
    "mlflow",
    "run_table",
    "summary",
    "tables",
    "tensorboard",
    "tracked",
    "trackio",
    "wandb",
)
