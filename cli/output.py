"""Printing, where what comes out of a recording cannot command the terminal."""

import os
import sys

from flexrec.recorder.errors import printable


def escape_the_unknown() -> None:
    """Have stdout and stderr write what their encoding lacks as escapes, such as \\u2588."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Have stdout lead nowhere: what it still holds could not be written, and never will be."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def echo(text: str, *, err: bool = False) -> None:
    """Print a text, its control characters made visible."""
    echo_as_is(printable(text), err=err)


def echo_as_is(text: str, *, err: bool = False) -> None:
    """Print a text whose control characters are meant."""
    print(text, file=sys.stderr if err else sys.stdout, flush=True)
