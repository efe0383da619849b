"""A sink for live plotting: a server that is absent or dies never stops training."""

import time
from collections.abc import Callable, Sequence

from flexrec.recorder.errors import MissingDependency, ServerError, warn
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.base import Sink

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  # seconds between tries to reach the server


class ResendingSink:
    """Sends windows through another sink; keeps them, and sends all again, after a failure.

    Args:
        connect: makes the other sink, or raises ServerError.
    """

    def __init__(self, connect: Callable[[], Sink]) -> None:
        self._connect = connect
        self._sink: Sink | None = None
        self._latest: dict[tuple[str | None, str], Window] = {}
        self._warned = False
        self._wait = _FIRST_WAIT
        self._next_try = 0.0

    def show(self, windows: Sequence[Window]) -> None:
        """Send the windows now, or when the server is back."""
        self._latest.update({(window.env, window.win): window for window in windows})
        if self._sink is not None:
            self._send(windows)
        elif time.monotonic() >= self._next_try:
            self._send(list(self._latest.values()))

    def close(self) -> None:
        """One last try to send what the server does not have."""
        if self._sink is None and self._latest:
            self._send(list(self._latest.values()))
        if self._sink is not None:
            self._sink.close()

    def _send(self, windows: Sequence[Window]) -> None:
        try:
            self._sink = self._sink or self._connect()
            self._sink.show(windows)
            self._wait = _FIRST_WAIT
        except (MissingDependency, ServerError) as error:
            self._sink = None
            self._next_try = time.monotonic() + self._wait
            self._wait = min(2 * self._wait, _LONGEST_WAIT)
            if not self._warned:
                self._warned = True
                warn(f"{error}; windows are kept in memory and sent when it answers")
