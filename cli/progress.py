"""Progress: what long work has done so far, on a terminal; nothing in a pipe."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import typer

from flexrec.recorder.reader import Recording

__all__ = ["Line", "reading", "waiting"]

_PATIENCE = 0.5  # seconds until something is said, and between what is said


class Line:
    """A line of the terminal that is written over again and again."""

    def __init__(self) -> None:
        self._shown = ""

    def show(self, text: str) -> None:
        """Put this in place of what it says; nothing where nobody watches."""
        if sys.stderr.isatty():
            typer.echo("\r" + text.ljust(len(self._shown)), err=True, nl=False)
            self._shown = text

    def end(self) -> None:
        """Take it away."""
        if self._shown:
            typer.echo("\r" + " " * len(self._shown) + "\r", err=True, nl=False)
        self._shown = ""


def reading(runs: Sequence[Recording]) -> AbstractContextManager[None]:
    """Show how much of the recordings has been read meanwhile."""
    size = sum(run.file_bytes for run in runs) / 1e6

    def say() -> str:
        return f"read {sum(run.read_bytes for run in runs) / 1e6:,.1f} of {size:,.1f} MB"

    return _telling(say)


def waiting(path: Path) -> AbstractContextManager[None]:
    """Show how long it has taken meanwhile to read a file in another process."""
    begin = time.monotonic()
    size = path.stat().st_size / 1e6 if path.is_file() else 0.0
    return _telling(lambda: f"reading {size:,.1f} MB: {time.monotonic() - begin:.0f} s")


@contextmanager
def _telling(say: Callable[[], str]) -> Iterator[None]:
    """Show, now and then, what it says."""
    if not sys.stderr.isatty():
        yield
        return
    line, ended = Line(), threading.Event()

    def tell() -> None:
        while not ended.wait(_PATIENCE):
            line.show(say())

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        line.end()
