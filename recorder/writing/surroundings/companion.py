"""Companion: an object that runs in the thread that writes a recorder's file."""

from typing import Protocol


class Companion(Protocol):
    """Records something beside the training.

    Attributes:
        seconds: how often `tick` wants to be called.
    """

    seconds: float

    def start(self) -> str | None:
        """Begin, once the recorder is made. Returns a warning to give, if any."""

    def tick(self) -> str | None:
        """Do what is due; called by the writer's thread. Returns a warning to give, if any."""

    def close(self) -> None:
        """End: record what is left, and restore what was changed. A second call does nothing."""

    def forget(self) -> None:
        """End in a forked child, without recording."""
