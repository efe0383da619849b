"""The packages of the extra `frameworks`, as they are imported."""

__all__ = ["FRAMEWORKS"]

FRAMEWORKS = (
    "accelerate",
    "ignite",
    "lightning",
    "matplotlib",
    "skorch",
    "tensorboard",
    "transformers",
    "wandb",
)
