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
    "skorch",
    "tensorboard",
    "trackio",
    "transformers",
    "wandb",
)
