"""Progress: what long work has done so far, on a terminal; nothing in a pipe."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from flexrec.recorder.reader import Recording

__all__ = ["Line", "reading"]

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


@contextmanager
def reading(runs: Sequence[Recording]) -> Iterator[None]:
    """Show how much of the recordings has been read meanwhile."""
    if not sys.stderr.isatty():
        yield
        return
    line, ended, size = Line(), threading.Event(), sum(run.file_bytes for run in runs)

    def tell() -> None:
        while not ended.wait(_PATIENCE):
            done = sum(run.read_bytes for run in runs)
            line.show(f"read {done / 1e6:,.1f} of {size / 1e6:,.1f} MB")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        line.end()
