"""Send windows to visdom in a background thread, so that no server can block the caller.

The thread and its callers share attributes that are assigned atomically, and a queue that wakes the
thread, but no lock: a Ctrl-C between acquiring and releasing one would stop the thread for good.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue

from flexrec.recorder.errors import DefinitionError, ServerError, counted, listed, warn
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.base import Place, changes, page_of, placed
from flexrec.replay.sinks.palette import Palette
from flexrec.replay.sinks.visdom import VisdomSink

CLOSE_SECONDS = 30.0  # limit for `close`
FIRST_SECONDS = 0.15  # wait of the first `show`, so that an absent server is reported at once
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 10.0  # seconds between tries to reach the server
_LOOK_SECONDS = 5.0  # between checks whether an idle server has lost the windows
_ROUNDS = 3  # of sending, if the connection breaks meanwhile
_TICK = 0.005


class ResendingSink:
    """Keeps the latest version of each window; a thread sends those that the server lacks.

        sink = ResendingSink(VisdomSink(env="my_env"))
        sink.show(windows)
        sink.close()

    A window counts as sent when the server has answered. Requests to a server that is absent, slow
    or hangs are repeated, and a restarted server gets every window again. If `close` is never
    called, the rest is sent at the end of the program. A forked process has its own thread and
    connection, and a pickled copy starts without windows.

    Args:
        sink: the server.
        tell: called, in the caller's thread, once if a server does not answer, and once for each
            window that cannot be drawn.
    """

    def __init__(self, sink: VisdomSink, *, tell: Callable[[str], None] = warn) -> None:
        self._sender = _Sender(sink)
        self._tell = tell
        self._reported: set[str] = set()
        self._waited = False
        self._at_end = weakref.finalize(self, _finish, self._sender)

    def __str__(self) -> str:
        return page_of(self._sender.sink.url, self._sender.sink.env)

    def __reduce__(self) -> tuple[type["ResendingSink"], tuple[VisdomSink]]:
        return type(self), (self._sender.sink,)

    def show(self, windows: Sequence[Window]) -> None:
        """Set all windows that the server should show; any other is removed from it."""
        if not self._at_end.alive:  # it was closed
            self._at_end = weakref.finalize(self, _finish, self._sender)
        self._sender.want(windows)
        if not self._waited:
            self._waited = True
            _wait(lambda: self._sender.tries > 0, FIRST_SECONDS)
        self.report()

    def report(self) -> None:
        """Report new failures and windows that cannot be drawn."""
        failure = self._sender.failure
        if failure is not None and "" not in self._reported:
            self._reported.add("")
            self._tell(f"{failure}; windows are kept in memory and sent when it answers")
        for message in list(self._sender.undrawable.values()):
            if message not in self._reported:
                self._reported.add(message)
                self._tell(message)

    def save(self, envs: Iterable[str | None]) -> None:
        """Make the server write environments to its folder, once all is sent.

        Raises:
            ServerError: the server fails.
        """
        self.flush()
        for env in envs:
            self._sender.sink.save(env)

    def flush(self, seconds: float = CLOSE_SECONDS) -> None:
        """Wait until all is sent.

        Raises:
            ServerError: not all could be sent; names the windows.
        """
        self._sender.finish(seconds)
        if self._sender.failure is not None:
            self._reported.add("")  # the error says so
        self.report()
        self._sender.check()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Send the rest, and close the connection.

        Raises:
            ServerError: not all could be sent in `seconds`; names the windows.
        """
        try:
            self.flush(seconds)
        except ServerError:
            self._let_go()
            raise
        self._let_go()  # skipped after a Ctrl-C: the thread continues, and the rest is sent at exit

    def _let_go(self) -> None:
        self._at_end.detach()
        self._sender.sink.close()


class _Sender:
    """The thread that sends, and its state.

    Attributes:
        sink: the server; only the thread uses it.
        tries: the number of tries to send.
        failure: why the last try failed; None: it did not.
        undrawable: why windows cannot be drawn.
    """

    def __init__(self, sink: VisdomSink) -> None:
        self.sink = sink
        self.tries = 0
        self.failure: ServerError | None = None
        self.undrawable: dict[Place, str] = {}
        self._wanted: dict[Place, Window] = {}  # assigned by callers
        self._sent: dict[Place, Window] = {}  # the rest is the thread's; no traces: to be redrawn
        self._opts: dict[Place, Mapping[str, object]] = {}  # of those sent, with their colours
        self._drawn: dict[Place, Window] | None = None  # the wanted windows that were all drawn
        self._removed: dict[Place, Window] = {}
        self._start_anew()

    def want(self, windows: Sequence[Window]) -> None:
        """Set the windows to send."""
        if self._process != os.getpid():  # after a fork: the other process sends its windows
            self._sent = dict(self._wanted)
            self._start_anew()
        self._wanted = placed(windows)
        self._ending = False
        self._ring()

    def finish(self, seconds: float) -> None:
        """Make the thread check whether the server has all windows, send the rest, and end."""
        if self._process != os.getpid() or not (self._wanted or self._sent):
            return
        until = time.monotonic() + seconds
        while True:
            self._ended, self._ending = False, True
            self._ring()
            if threading.get_ident() == self._thread:  # the garbage collector may call anywhere
                return
            _wait(lambda: self._ended, until - time.monotonic())
            # A thread that was about to end when it was woken has not seen the latest windows.
            if self.failure is not None or not any(self._lacking()) or time.monotonic() >= until:
                return

    def check(self) -> None:
        """Raise ServerError if the server may lack windows."""
        if self._process != os.getpid():
            return
        _, unsent = self._lacking()
        if not unsent and self.failure is not None:
            raise ServerError(f"{self.failure}; it may have lost the windows that it was sent")
        if unsent:
            names = listed(repr(window.win) for window in unsent)
            why = self.failure or f"{self.sink.url} takes too long"
            what = counted(len(unsent), "window")
            raise ServerError(f"{what} could not be sent ({names}): {why}")

    def _start_anew(self) -> None:
        self._process = os.getpid()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._only_one = threading.Lock()  # of threads; no caller waits for it
        self._running = self._ending = self._ended = False
        self._thread = 0
        self._connections: int | None = None  # of the sink, when the last round began

    def _ring(self) -> None:
        """Wake the thread, or start it."""
        self._bell.put(None)
        if self._running:
            return
        try:
            threading.Thread(target=self._run, name="flexrec-visdom", daemon=True).start()
        except RuntimeError as error:  # too many threads, or the interpreter is ending
            self.failure = ServerError(f"no thread can be started to send windows: {error}")
            self._ended = True

    def _run(self) -> None:
        if not self._only_one.acquire(blocking=False):
            return
        self._running, self._thread = True, threading.get_ident()
        try:
            self._work()
        finally:
            self._running, self._thread = False, 0
            self._only_one.release()
            self._ended = True  # last, since a waiting caller may start the next thread

    def _work(self) -> None:
        """Send, and wait for more, until `finish` is called."""
        wait = _FIRST_WAIT
        while True:
            ending = self._ending
            if self._try():
                wait = _FIRST_WAIT
                if ending and not any(self._lacking()):
                    return
                self._rest(_LOOK_SECONDS)
            elif ending:
                return
            else:
                self._rest(wait)
                wait = min(2 * wait, _LONGEST_WAIT)

    def _rest(self, seconds: float) -> None:
        """Wait until there is something to do; after a failure, for `seconds`."""
        until = time.monotonic() + seconds
        while not self._ending:
            try:
                self._bell.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                return
            if self.failure is None:
                with suppress(Empty):
                    while True:  # several calls need one look
                        self._bell.get_nowait()
                return

    def _try(self) -> bool:
        """Send what the server lacks; return whether it answered."""
        try:
            if not any(self._send() for _ in range(_ROUNDS)):
                raise ServerError(f"{self.sink.url} is restarted again and again")
            self.failure = None
        except ServerError as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 - no error may end the thread
            self.failure = ServerError(f"windows cannot be sent to {self.sink.url}: {error!r}")
        self.tries += 1
        return self.failure is None

    def _send(self) -> bool:
        """Send what the server lacks; return whether a single server surely got it all."""
        wanted = self._wanted
        if not self._is_held():
            self._forget()
        self._connections = self.sink.connections
        gone, changed = changes(self._sent, wanted)
        for window in gone:
            self.sink.remove(window)
            place = (window.env, window.win)
            self._removed[place] = window
            del self._sent[place]
        if changed or wanted is not self._drawn:
            self._draw_all(wanted, {(window.env, window.win) for window in changed})
        return self._connections == self.sink.connections

    def _draw_all(self, wanted: dict[Place, Window], changed: Set[Place]) -> None:
        """Draw what changed, and windows whose colours changed, as a replay of all paints them."""
        for place, painted in zip(wanted, Palette().paint([*wanted.values()]), strict=True):
            if place in changed or painted.opts != self._opts.get(place, painted.opts):
                self._draw(wanted[place], painted)
            if self._ending and self._wanted is not wanted:
                return  # there are newer ones
        self._drawn = wanted

    def _draw(self, window: Window, painted: Window) -> None:
        place = (window.env, window.win)
        try:
            self.sink.draw(painted)
            self.undrawable.pop(place, None)
        except DefinitionError as error:
            self.undrawable[place] = f"window {window.win!r} cannot be drawn: {error}"
        self._sent[place], self._opts[place] = window, painted.opts

    def _forget(self) -> None:
        """Send everything again, and remove windows that an older state of the server may show."""
        known = {**self._removed, **self._sent}
        self._sent = {place: replace(window, traces=()) for place, window in known.items()}
        self._removed = {}

    def _is_held(self) -> bool:
        """Whether the server still has the windows that it was sent.

        A server that failed or was replaced may not; a restarted one may have read older windows
        from its folder.
        """
        drawn = (
            window
            for place, window in self._sent.items()
            if window.traces and place not in self.undrawable
        )
        first = next(drawn, None)
        if first is None or self.failure is not None:
            self.sink.probe()
            return False
        held = self.sink.holds(first)
        return held and self._connections in (None, self.sink.connections)

    def _lacking(self) -> tuple[list[Window], list[Window]]:
        """The windows to remove from the server, and the windows to send."""
        return changes(dict(self._sent), self._wanted)


def _wait(done: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not done() and time.monotonic() < until:
        time.sleep(_TICK)


def _finish(sender: _Sender) -> None:
    """Finish at exit, if `close` was not called."""
    sender.finish(CLOSE_SECONDS)
    try:
        sender.check()
    except ServerError as error:
        warn(str(error))
