"""The packages of the extra `frameworks`, as they are imported."""

__all__ = ["FRAMEWORKS"]

FRAMEWORKS = (
    "accelerate",
    "dask",
    "duckdb",
    "fsspec",
    "ignite",
    "lightning",
    "matplotlib",
    "polars",
    "skorch",
    "tensorboard",
    "transformers",
    "wandb",
)
