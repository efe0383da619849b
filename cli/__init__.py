"""The command line."""

from flexrec.cli.main import main

__all__ = ["main"]
