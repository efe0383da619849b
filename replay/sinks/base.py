"""Where windows go: what a sink is, and the one that keeps them in memory."""

from collections.abc import Sequence
from typing import Protocol

from flexrec.replay.plots.window import Window


class Sink(Protocol):
    """Takes windows; each is whole, and replaces the earlier one of its environment and id."""

    def show(self, windows: Sequence[Window]) -> None:
        """Take in these windows."""

    def close(self) -> None:
        """Finish: write what is to be written, let go of what is held."""


class ListSink:
    """Keeps the windows in memory.

        >>> sink = ListSink()
        >>> sink.show([])
        >>> sink.windows
        {}

    Attributes:
        windows: {(environment or None, window id): the latest window}, in order of appearance.
        history: every window ever shown, in order.
    """

    def __init__(self) -> None:
        self.windows: dict[tuple[str | None, str], Window] = {}
        self.history: list[Window] = []

    def show(self, windows: Sequence[Window]) -> None:
        """Take in these windows."""
        self.history.extend(windows)
        self.windows.update({(window.env, window.win): window for window in windows})

    def close(self) -> None:
        """Nothing to do: the windows stay."""
