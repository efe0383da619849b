"""Printing: what comes out of a recording cannot command the terminal."""

import typer

__all__ = ["counted", "echo", "printable"]

_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\n\t"}


def echo(text: str, *, err: bool = False) -> None:
    """Print a text, its control characters made visible."""
    typer.echo(printable(text), err=err)


def printable(text: str) -> str:
    """The text with control characters, but for line breaks and tabs, as escapes.

    >>> printable("loss\\x1b[2J")
    'loss\\\\x1b[2J'
    """
    return text.translate(_CONTROLS).encode("utf-8", "replace").decode("utf-8")


def counted(number: int, noun: str) -> str:
    """How many of something.

    >>> counted(1, "window"), counted(1200, "event")
    ('1 window', '1,200 events')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
