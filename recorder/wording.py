"""How messages count things and list names."""

import sys
import warnings
from collections.abc import Iterable

__all__ = ["counted", "listed", "warn"]


def warn(message: str) -> None:
    """Warn, at the line of the caller's own code that called into flexrec."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("flexrec."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, RuntimeWarning, stacklevel=level)


def counted(number: int, noun: str) -> str:
    """How many of something.

    >>> counted(1, "window"), counted(1200, "event")
    ('1 window', '1,200 events')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listed(names: Iterable[str], most: int = 10) -> str:
    """At most so many of the names, whole, and how many more there are.

    >>> listed(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    known = list(names)
    more = f" and {len(known) - most:,} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more
