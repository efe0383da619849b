"""Record the lines that the process prints to sys.stdout and sys.stderr, when they are complete.

The streams stay what they are: their `write` is replaced on the object, so that handlers that hold
a stream are heard too. What subprocesses and C code write to the descriptors is not.
"""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from flexrec.recorder.errors import FlexrecError
from flexrec.recorder.events import CONSOLE
from flexrec.recorder.writing.event_queue import EventQueue

STREAMS = ("stdout", "stderr")
MOST_BYTES = 16 << 20
"""The most bytes of lines that are kept of a recording, of both streams together."""

_LONGEST = 1 << 14  # characters of a line
_MISSING = object()
Listener: TypeAlias = Callable[[str], None]


class Console:
    """Records the lines of both standard streams, at the current step and time.

    Args:
        queue: where texts are added.
        most_bytes: the most bytes to keep; then one line says so, and nothing more is kept.
    """

    seconds = 1.0

    def __init__(self, queue: EventQueue, most_bytes: int = MOST_BYTES) -> None:
        self._queue, self._left = queue, most_bytes
        self._lines = {name: Lines() for name in STREAMS}
        self._heard = list[tuple[_Stream, Listener]]()
        self._here, self._cutting = _Here(), threading.RLock()
        self._has_ended = False

    def start(self) -> None:
        """Begin to listen to the streams as they are now."""
        for name in STREAMS:
            listener = self._listener(name)
            heard = _listen(getattr(sys, name), listener)
            if heard is not None:
                self._heard.append((heard, listener))
        shell = _shell()
        if shell is not None:
            shell.events.register("pre_run_cell", self._before_cell)

    def _before_cell(self, *_: object) -> None:
        """Listen again: at the end of a cell IPython puts back the `write` that it found."""
        self.tick()

    def tick(self) -> str | None:
        """Listen to the streams again if something was put in the place of their taps."""
        for heard, _ in self._heard:
            heard.attach()
        return None

    def close(self) -> None:
        """Record lines that have no end yet, and stop listening."""
        self._stop()
        with self._cutting:
            for name, lines in () if self._has_ended else self._lines.items():
                self._record(name, lines.rest())
            self._has_ended = True

    def forget(self) -> None:
        """Stop listening in a forked child."""
        self._has_ended = True
        self._stop()

    def _stop(self) -> None:
        ended, self._heard = self._heard, []
        for heard, listener in ended:
            _leave(heard, listener)
        shell = _shell()
        if shell is not None and ended:
            with suppress(ValueError):
                shell.events.unregister("pre_run_cell", self._before_cell)

    def _listener(self, name: str) -> Listener:
        def heard(text: str) -> None:
            # What recording itself prints, such as a warning, is printed only.
            if self._here.is_busy or self._has_ended:
                return
            self._here.is_busy = True
            try:
                with self._cutting:
                    self._record(name, self._lines[name].add(text))
            finally:
                self._here.is_busy = False

        return heard

    def _record(self, name: str, lines: list[str]) -> None:
        for line in lines:
            size = len(line.encode("utf-8", "surrogatepass"))
            if size > self._left:
                line = "flexrec: what is printed from here on is not kept"
                self._has_ended = True
            self._left -= size
            with suppress(FlexrecError):  # printing goes on whatever becomes of the recording
                self._queue.note(f"{CONSOLE}{name}", line)
            if self._has_ended:
                return


def _shell() -> Any:
    """IPython's shell, if the process runs in one."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else getattr(ipython, "get_ipython", lambda: None)()


class Lines:
    """Cuts what is written to a stream into lines, as a terminal shows them at last.

    >>> lines = Lines()
    >>> lines.add("epoch 1\\n 10%|#  |\\r 90%|###|"), lines.rest()
    (['epoch 1'], [' 90%|###|'])

    Of the parts of a line that carriage returns separate the last one that is not blank counts.
    """

    def __init__(self) -> None:
        self._rest = ""

    def add(self, text: str) -> list[str]:
        """Add a text; return the lines that are complete now, without blank ones."""
        if "\n" not in text and "\r" not in text and len(self._rest) < _LONGEST:
            self._rest += text
            return []
        *ended, rest = (self._rest + text).split("\n")
        if "\r" in rest.rstrip("\r"):  # what a bar has overwritten is not needed
            rest = rest[rest.rstrip("\r").rindex("\r") :]
        self._rest = rest[: 2 * _LONGEST]
        return [line for line in map(_folded, ended) if line]

    def rest(self) -> list[str]:
        """The line that has no end yet, if there is one."""
        rest, self._rest = _folded(self._rest), ""
        return [rest] if rest else []


def _folded(line: str) -> str:
    shown = next((part for part in reversed(line.split("\r")) if part.strip()), "").rstrip()
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


class _Here(threading.local):
    """Whether this thread is in the middle of recording a line."""

    is_busy = False


class _Stream:
    """A stream that is listened to.

    Attributes:
        listeners: called with each text once it is written.
    """

    def __init__(self, stream: Any) -> None:
        self.stream, self.listeners = stream, tuple[Listener, ...]()
        self.here = _Here()

    def attach(self) -> None:
        """Put a tap over the stream's `write`, unless there is one on top.

        Something else may have been put over it since, or IPython, which replaces `write` while a
        cell runs, may have put back what it found. Of several taps the outermost one tells.

        Raises:
            AttributeError, TypeError: it is no stream, or one that cannot be changed.
        """
        if not isinstance(vars(self.stream).get("write"), _Tap):
            self.stream.write = _Tap(self)

    def detach(self) -> None:
        """Restore the original `write`, unless other code has replaced it since."""
        while isinstance(tap := vars(self.stream).get("write"), _Tap):
            if tap.before is _MISSING:
                del self.stream.write
            else:
                self.stream.write = tap.before


class _Tap:
    """Stands in for the `write` of a stream.

    Attributes:
        before: what another had put there; `_MISSING` if nothing.
    """

    def __init__(self, stream: _Stream) -> None:
        self._of = stream
        self.before = vars(stream.stream).get("write", _MISSING)
        self._write = stream.stream.write

    def __call__(self, text: str) -> Any:
        stream = self._of
        if stream.here.is_busy or not stream.listeners:
            return self._write(text)
        stream.here.is_busy = True
        try:
            result = self._write(text)
        finally:
            stream.here.is_busy = False
        try:
            for listener in stream.listeners:
                listener(text)
        except Exception:  # noqa: BLE001, S110 - no error of recording is one of printing
            pass
        return result


_streams: dict[int, _Stream] = {}
"""The streams that are listened to, by their ids."""


def _listen(stream: Any, listener: Listener) -> _Stream | None:
    """Call the listener with what is written to a stream; None if the stream takes no tap."""
    heard = _streams.get(id(stream)) or _Stream(stream)
    try:
        heard.attach()
    except (AttributeError, TypeError):
        return None
    heard.listeners = (*heard.listeners, listener)
    _streams[id(stream)] = heard
    return heard


def _leave(heard: _Stream, listener: Listener) -> None:
    """Call the listener no more."""
    heard.listeners = tuple(one for one in heard.listeners if one is not listener)
    if not heard.listeners:
        heard.detach()
        _streams.pop(id(heard.stream), None)
