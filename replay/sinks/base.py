"""Where windows go: what a sink is, the one that keeps them in memory, and what a sink lacks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from flexrec.recorder.errors import warn
from flexrec.replay.plots.window import Window, equal

Place: TypeAlias = tuple[str | None, str]
"""Where a window is: its environment, or None for the sink's own, and its id."""


class Sink(Protocol):
    """Takes windows; each is whole, and replaces the earlier one of its environment and id."""

    def show(self, windows: Sequence[Window]) -> None:
        """Take in these windows."""

    def remove(self, window: Window) -> None:
        """Take a window away, if it is there."""

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
        self.windows: dict[Place, Window] = {}
        self.history: list[Window] = []

    def show(self, windows: Sequence[Window]) -> None:
        """Take in these windows."""
        self.history.extend(windows)
        self.windows.update(placed(windows))

    def remove(self, window: Window) -> None:
        """Take a window away, if it is there."""
        self.windows.pop((window.env, window.win), None)

    def close(self) -> None:
        """Nothing to do: the windows stay."""


class ChangesSink:
    """Passes on to another sink what has changed of all windows, and takes away what is gone."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._held: dict[Place, Window] = {}

    def show(self, windows: Sequence[Window]) -> None:
        """Pass on what differs from the windows of the last call."""
        wanted = placed(windows)
        gone, changed = changes(self._held, wanted)
        for window in gone:
            self._sink.remove(window)
        self._sink.show(changed)
        self._held = wanted

    def save(self, envs: Iterable[str | None]) -> None:
        """Have the other sink save environments, as VisdomSink does.

        Raises:
            TypeError: it does not save any.
        """
        save = getattr(self._sink, "save", None)
        if save is None:
            raise TypeError(f"a {type(self._sink).__name__} has no environments to save")
        for env in envs:
            save(env)

    def close(self) -> None:
        """Close the other sink."""
        self._sink.close()

    def __str__(self) -> str:
        return f"a {type(self._sink).__name__}"


def placed(windows: Iterable[Window]) -> dict[Place, Window]:
    """The windows by their places; two of one place are warned of, and the last is taken."""
    found: dict[Place, Window] = {}
    for window in windows:
        other = found.setdefault((window.env, window.win), window)
        if other is not window:
            warn(
                f"two windows have the id {window.win!r}, {other.title!r} (a {other.type}) and "
                f"{window.title!r} (a {window.type}): only the last is shown; rename a plot, or "
                "give it another `win`"
            )
            found[window.env, window.win] = window
    return found


def changes(
    held: Mapping[Place, Window], wanted: Mapping[Place, Window]
) -> tuple[list[Window], list[Window]]:
    """The windows that a sink holds and should not, and those that it lacks or has otherwise."""
    gone = [window for place, window in held.items() if place not in wanted]
    changed = [
        window
        for place, window in wanted.items()
        if place not in held or (held[place] is not window and not equal(held[place], window))
    ]
    return gone, changed
