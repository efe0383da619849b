"""Record the lines that the process prints to sys.stdout and sys.stderr, when they are complete.

The streams stay what they are: their `write` is replaced on the object, so that handlers that hold
a stream are heard too. What subprocesses and C code write to the descriptors is not.
"""

import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from flexrec.recorder.errors import FlexrecError, listed
from flexrec.recorder.files.names import CONSOLE
from flexrec.recorder.writing.event_queue import EventQueue

STREAMS = ("stdout", "stderr")
MOST_BYTES = 16 << 20
"""The most bytes of lines that are kept of a recording, of both streams together."""

_LONGEST = 1 << 14  # characters of a line
_HIGHEST = 100  # lines over which the cursor moves up
_MOVES = re.compile(r"(\n|\x1b\[\d{0,3}[AF])")
_CODES = re.compile(  # of terminals: CSI, OSC such as a title, others
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\-~])"
)
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

    def start(self) -> str | None:
        """Begin to listen to the streams as they are now; name those that take no tap."""
        streams = {id(getattr(sys, name)): name for name in reversed(STREAMS)}
        refused = list[str]()
        for name in reversed(streams.values()):  # stderr is left out if it is stdout
            stream, listener = getattr(sys, name), self._listener(name)
            heard = _listen(stream, listener)
            if heard is not None:
                self._heard.append((heard, listener))
            elif stream is not None:  # a process may have none
                refused.append(f"sys.{name} ({type(stream).__name__})")
        shell = _shell()
        if shell is not None:
            shell.events.register("pre_run_cell", self._before_cell)
        if not refused:
            return None
        which = f"what is printed to {listed(refused)} is not recorded"
        return f"{which}: console=True replaces a stream's write method, and this was refused"

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
    After codes that move the cursor up, as nested bars write them, lines end when it moves down
    from the lowest one.
    """

    def __init__(self) -> None:
        self._rows, self._at = [""], 0  # that have not ended, and the number of the cursor's one

    def add(self, text: str) -> list[str]:
        """Add a text; return the lines that are complete now, without blank ones."""
        if len(self._rows) > 1 or "\x1b[" in text:
            return self._move(text)
        rest = self._rows[0]
        if "\n" not in text and "\r" not in text and len(rest) < _LONGEST:
            self._rows[0] += text
            return []
        *ended, rest = (rest + text).split("\n")
        self._rows[0] = _overwritten(rest)
        return _shown(ended)

    def rest(self) -> list[str]:
        """The lines that have no end yet."""
        rest, self._rows, self._at = self._rows, [""], 0
        return _shown(rest)

    def _move(self, text: str) -> list[str]:
        ended: list[str] = []
        first, *others = _MOVES.split(text)
        self._write(first)
        for move, part in zip(others[::2], others[1::2], strict=True):
            if move == "\n":
                ended += self._down()
            else:
                self._up(int(move[2:-1] or 1))
            self._write(part)
        return ended

    def _write(self, part: str) -> None:
        self._rows[self._at] = _overwritten(self._rows[self._at] + part)

    def _down(self) -> list[str]:
        self._at += 1
        if self._at == len(self._rows):
            return self.rest()
        self._return()
        return []

    def _up(self, by: int) -> None:
        above = min(by - self._at, _HIGHEST - len(self._rows))
        self._rows[:0] = [""] * above
        self._at = max(self._at - by, 0)
        self._return()

    def _return(self) -> None:
        """What is written next overwrites the row."""
        self._rows[self._at] = self._rows[self._at].rstrip("\r") + "\r"


def _overwritten(row: str) -> str:
    """A row without what a bar has overwritten, which is not needed."""
    shown = row.rstrip("\r")
    return row[max(shown.rfind("\r"), 0) :][: 2 * _LONGEST]


def _shown(rows: list[str]) -> list[str]:
    return [line for line in map(_folded, rows) if line]


def _folded(line: str) -> str:
    if "\x1b" in line:
        line = _CODES.sub("", line)
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
        own = vars(self.stream)  # a stream may set its attributes on another, that it wraps
        if not isinstance(own.get("write"), _Tap):
            own["write"] = _Tap(self)

    def detach(self) -> None:
        """Restore the original `write`, unless other code has replaced it since."""
        own = vars(self.stream)
        while isinstance(tap := own.get("write"), _Tap):
            if tap.before is _MISSING:
                del own["write"]
            else:
                own["write"] = tap.before


class _Tap:
    """Stands in for the `write` of a stream.

    Attributes:
        before: what another had put there; `_MISSING` if nothing.
    """

    def __init__(self, stream: _Stream) -> None:
        self._of = stream
        self.before = vars(stream.stream).get("write", _MISSING)
        self._write = stream.stream.write

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        stream = self._of
        if stream.here.is_busy or not stream.listeners:
            return self._write(*args, **kwargs)
        stream.here.is_busy = True
        try:
            result = self._write(*args, **kwargs)
        finally:
            stream.here.is_busy = False
        try:
            text = next(iter((*args, *kwargs.values())))
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
