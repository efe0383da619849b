"""The errors of flexrec, and nothing else.

    FlexrecError
    ├── RecordingError          a file cannot be read or written as a recording
    │   ├── ExistsError         a file is there that may not be overwritten (in
    files/atomic_write.py) │   ├── NotARecordingError  not HDF5, or HDF5 that flexrec did not write
    │   ├── UnknownKeyError     it has no such key (also a KeyError; in recording.py)
    │   └── VersionError        written by a newer flexrec
    ├── InputError              a value that cannot be recorded (also a TypeError)
    ├── DefinitionError         a wrong plot, meter, preset or definitions file (also a ValueError)
    ├── MeterError              a meter was fed what it cannot take (also a ValueError)
    └── ServerError             visdom's server is absent, silent, not visdom, or refuses

An argument of a Python call that is wrong in itself, as a mode that there is not, is Python's own
ValueError or TypeError.

A message says what was wrong, what came, what would be right, and the next step.
"""

import difflib
import sys
import warnings
from collections.abc import Iterable


class FlexrecError(Exception):
    """The root: catch it to catch whatever data, files, definitions and servers bring about."""


class RecordingError(FlexrecError):
    """A file cannot be read or written as a recording."""


class NotARecordingError(RecordingError):
    """The file is not HDF5, or it is HDF5 that flexrec did not write."""


class VersionError(RecordingError):
    """The recording was written in a format newer than this flexrec reads."""


class InputError(FlexrecError, TypeError):
    """A value given to `add` cannot be recorded."""


class DefinitionError(FlexrecError, ValueError):
    """A plot, meter, preset or definitions file is wrong."""


class MeterError(FlexrecError, ValueError):
    """A meter was fed a value that it cannot take."""


class ServerError(FlexrecError):
    """visdom's server is absent, silent, something else than visdom, or refuses."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'loss+MSE'?"` for a near miss, `""` where nothing is near.

    >>> nearest("MSE", ["AUCMeter", "MSEMeter"])
    "; did you mean 'MSEMeter'?"
    """
    wanted, by_folded = name.lower(), {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(wanted, by_folded, n=1, cutoff=0.6)
    found = found or [folded for folded in by_folded if len(wanted) > 1 and wanted in folded]
    return f"; did you mean {by_folded[found[0]]!r}?" if found else ""


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


_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\n\t"}
# Marks that turn the direction of what follows, and breaks of lines and paragraphs.
_MARKS = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_CONTROLS |= {c: f"\\u{c:04x}" for c in _MARKS}
_BREAKS = {ord("\n"): "\\n", ord("\t"): "\\t"}


def one_line(text: str) -> str:
    """The text as `printable` has it, its line breaks and tabs as escapes too.

    >>> one_line("loss\\nconfig: {}")
    'loss\\\\nconfig: {}'
    """
    return printable(text).translate(_BREAKS)


def printable(text: str) -> str:
    """The text with control characters, but for line breaks and tabs, as escapes; so are marks
    that turn the direction of a text.

    >>> printable("loss\\x1b[2J")
    'loss\\\\x1b[2J'
    """
    return text.translate(_CONTROLS).encode("utf-8", "replace").decode("utf-8")
