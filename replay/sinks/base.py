"""The interface of sinks, the sink that keeps windows in memory, and changes between windows."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from operator import eq
from typing import Protocol, TypeAlias
from urllib.parse import quote

from flexrec.recorder.errors import warn
from flexrec.replay.plots.window import Window, equal

Place: TypeAlias = tuple[str | None, str]
"""Identifies a window: its environment, or None for the sink's default, and its id."""

NOT_SHOWN = frozenset("\"#&'+<>?\\")
"""Characters of an environment's name with which visdom's page shows nothing."""


def page_of(url: str, env: str) -> str:
    """The address of an environment's page on a server.

    visdom replaces slashes in names of environments by underscores.

    >>> page_of("http://localhost:8097", "a, b/c")
    'http://localhost:8097/env/a%2C%20b_c'
    """
    return f"{url}/env/{quote(env.replace('/', '_'))}"


class Sink(Protocol):
    """Receives windows; each is complete, and replaces the one of the same environment and id."""

    def show(self, windows: Sequence[Window]) -> None:
        """Take in these windows."""

    def remove(self, window: Window) -> None:
        """Take a window away, if it is there."""

    def close(self) -> None:
        """Write everything, and release resources."""


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
        """Do nothing: the windows stay."""


class ChangesSink:
    """Passes changed windows on to another sink, and removes windows that are gone.

    The other sink has the windows in their order: those behind a new one are shown again.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._held: dict[Place, Window] = {}
        self._leaving: dict[Place, Window] = {}  # not in `_held`, and perhaps still shown

    def show(self, windows: Sequence[Window]) -> None:
        """Pass on the windows that differ from those of the last call."""
        wanted = placed(windows)
        stay = [place for place in self._held if place in wanted]
        in_order = takewhile(bool, map(eq, stay, wanted))
        kept = {place: self._held[place] for place in stay[: len(list(in_order))]}
        leaving = {place: window for place, window in self._held.items() if place not in kept}
        # Until all are removed: a Ctrl-C may come before.
        self._held, self._leaving = kept, {**self._leaving, **leaving}
        for window in self._leaving.values():
            self._sink.remove(window)
        self._leaving = {}
        self._sink.show(changes(kept, wanted)[1])
        self._held = wanted

    def save(self, envs: Iterable[str | None]) -> None:
        """Make the other sink save environments, as VisdomSink does.

        Raises:
            TypeError: it has no environments to save.
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
    """The windows by place; of two at the same place the last is used, with a warning."""
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
    """Compare windows: those that a sink should remove, and those that it lacks or that changed."""
    gone = [window for place, window in held.items() if place not in wanted]
    changed = [
        window
        for place, window in wanted.items()
        if place not in held or (held[place] is not window and not equal(held[place], window))
    ]
    return gone, changed
