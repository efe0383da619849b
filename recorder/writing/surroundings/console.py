"""Record the lines that the process prints to sys.stdout and sys.stderr, when they are complete.

The streams stay what they are: their `write` is replaced on the object, so that handlers that hold
a stream are heard too. What subprocesses and C code write to the descriptors is not.
"""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flexrec.recorder.errors import FlexrecError
from flexrec.recorder.events import CONSOLE
from flexrec.recorder.writing.event_queue import EventQueue

STREAMS = ("stdout", "stderr")
MOST_BYTES = 16 << 20
"""The most bytes of lines that are kept of a recording, of both streams together."""

_LONGEST = 1 << 14  # characters of a line
_MISSING = object()


class Console:
    """Records the lines of both standard streams, at the current step and time.

    Args:
        queue: where texts are added.
        most_bytes: the most bytes to keep; then one line says so, and nothing more is kept.
    """

    seconds = 3600.0  # lines are recorded as they are printed

    def __init__(self, queue: EventQueue, most_bytes: int = MOST_BYTES) -> None:
        self._queue, self._left = queue, most_bytes
        self._lines = {name: Lines() for name in STREAMS}
        self._taps = list[tuple[_Tap, Callable[[str], None]]]()
        self._here, self._cutting = _Here(), threading.RLock()
        self._has_ended = False

    def start(self) -> None:
        """Begin to listen to the streams as they are now."""
        for name in STREAMS:
            tap = _tap_on(getattr(sys, name))
            if tap is not None:
                listener = self._listener(name)
                tap.listeners = (*tap.listeners, listener)
                self._taps.append((tap, listener))

    def tick(self) -> str | None:
        """Nothing is due."""
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
        taps, self._taps = self._taps, []
        for tap, listener in taps:
            tap.listeners = tuple(one for one in tap.listeners if one is not listener)
            tap.remove_if_unused()

    def _listener(self, name: str) -> Callable[[str], None]:
        def heard(text: str) -> None:
            # What recording itself prints, such as a warning, is printed only.
            if self._here.is_recording or self._has_ended:
                return
            self._here.is_recording = True
            try:
                with self._cutting:
                    self._record(name, self._lines[name].add(text))
            finally:
                self._here.is_recording = False

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
    """Whether this thread is recording a line."""

    is_recording = False


class _Tap:
    """Stands in for the `write` of a stream, and tells listeners what is written.

    Attributes:
        listeners: called with each text once it is written.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._before = vars(stream).get("write", _MISSING)  # another's, to be put back
        self._write = stream.write
        self.listeners: tuple[Callable[[str], None], ...] = ()

    def __call__(self, text: str) -> Any:
        result = self._write(text)
        try:
            for listener in self.listeners:
                listener(text)
        except Exception:  # noqa: BLE001, S110 - no error of recording is one of printing
            pass
        return result

    def is_in_place(self) -> bool:
        """Whether the stream calls it directly."""
        return vars(self._stream).get("write") is self

    def remove_if_unused(self) -> None:
        """Put back what was there, unless there are listeners, or another put its own over it."""
        if self.listeners or not self.is_in_place():
            return
        if self._before is _MISSING:
            del self._stream.write
        else:
            self._stream.write = self._before


def _tap_on(stream: Any) -> _Tap | None:
    """The tap on a stream; a new one if there is none; None if it takes none."""
    there = getattr(stream, "__dict__", {}).get("write")
    if isinstance(there, _Tap):
        return there
    try:
        tap = _Tap(stream)
        stream.write = tap
    except (AttributeError, TypeError):  # no stream, or one that cannot be changed
        return None
    return tap
