"""The frameworks that the tests of recorder/integrations/ use, as they are imported."""

__all__ = ["FRAMEWORKS"]

FRAMEWORKS = ("accelerate", "ignite", "lightning", "skorch", "transformers")
