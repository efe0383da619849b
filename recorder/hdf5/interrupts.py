"""Delay signals such as Ctrl-C while h5py is at work, so that they are not lost."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM")
_Handler = Callable[[int, FrameType | None], Any]


class HeldInterrupts:
    """Context manager that delays signal handlers until the block ends.

    >>> with HeldInterrupts():
    ...     pass

    h5py runs Python code when its objects are freed. If a signal handler raises there, for example
    KeyboardInterrupt, Python prints the exception and drops it. A second signal of the same kind
    is not delayed, so that long work can be interrupted. In threads other than the main one, which
    never run handlers, this does nothing.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, _Handler] = {}
        self._came: list[int] = []
        self._undelivered = iter(self._came)

    def __enter__(self) -> None:
        if threading.get_ident() != threading.main_thread().ident:
            return
        try:
            for number in (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)):
                handler = signal.getsignal(number)
                if callable(handler):  # else it is not a Python handler
                    self._handlers[number] = handler
                    signal.signal(number, self._hold)
        except BaseException:  # from a signal that is not delayed yet
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self._end()
        finally:
            self._end()  # what is left if a handler raised meanwhile

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if number in self._came:
            self._handlers[number](number, frame)
        else:
            self._came.append(number)

    def _end(self) -> None:
        """Restore all handlers, then deliver what came; a second call does what is left."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._hold:
                signal.signal(number, handler)
        # All in C, where no handler can run between taking a signal and raising it.
        any(map(signal.raise_signal, self._undelivered))
