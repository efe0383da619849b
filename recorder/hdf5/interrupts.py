"""Ctrl-C while h5py is at work: it comes afterwards, and is not lost."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM")
_Handler = Callable[[int, FrameType | None], Any]


class HeldInterrupts:
    """Hold the handlers of signals back until the block ends.

    >>> with HeldInterrupts():
    ...     pass

    h5py runs Python code whenever one of its objects is freed. What a handler raises there, such as
    KeyboardInterrupt, Python prints and drops. A second signal of a kind is not held back, so that
    long work can be interrupted. Other threads never run handlers, so there this does nothing.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, _Handler] = {}
        self._came: list[int] = []

    def __enter__(self) -> None:
        if threading.get_ident() != threading.main_thread().ident:
            return
        try:
            for number in (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)):
                handler = signal.getsignal(number)
                if callable(handler):  # else Python has no part in it
                    self._handlers[number] = handler
                    signal.signal(number, self._hold)
        except BaseException:  # of a signal that was not held back yet
            self._restore()
            raise

    def __exit__(self, *_: object) -> None:
        self._restore()
        self._deliver()

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if number in self._came:
            self._handlers[number](number, frame)
        else:
            self._came.append(number)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._hold:
                signal.signal(number, handler)

    def _deliver(self) -> None:
        while self._came:
            try:
                signal.raise_signal(self._came.pop())
            finally:
                self._deliver()
