"""The packages of the extra `frameworks`, as they are imported."""

__all__ = ["FRAMEWORKS"]

FRAMEWORKS = (
    "accelerate",
    "dask",
    "duckdb",
    "fsspec",
    "ignite",
    "keras",
    "lightning",
    "matplotlib",
    "mlflow",
    "polars",
    "pyfive",
    "skorch",
    "tensorboard",
    "trackio",
    "transformers",
    "wandb",
)
