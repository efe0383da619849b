"""Printing, where what comes out of a recording cannot command the terminal; and writing files."""

import sys

import typer

from flexrec.recorder.errors import printable


def echo(text: str, *, err: bool = False) -> None:
    """Print a text, its control characters made visible."""
    echo_as_is(printable(text), err=err)


def echo_as_is(text: str, *, err: bool = False) -> None:
    """Print a text whose control characters are meant; what cannot be encoded is escaped."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)
