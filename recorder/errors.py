"""The errors of flexrec, and nothing else.

    FlexrecError
    ├── RecordingError          a file cannot be read or written as a recording
    │   ├── ExistsError         a file is there that may not be overwritten (in replacing.py)
    │   ├── NotARecordingError  not HDF5, or HDF5 that flexrec did not write
    │   ├── UnknownKeyError     it has no such key (also a KeyError; in reader.py)
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
from collections.abc import Iterable

__all__ = [
    "DefinitionError",
    "FlexrecError",
    "InputError",
    "MeterError",
    "NotARecordingError",
    "RecordingError",
    "ServerError",
    "VersionError",
    "nearest",
]


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
    """`"; did you mean 'loss+MSE'?"` for a near miss, `""` where nothing is near."""
    by_folded = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_folded, n=1, cutoff=0.6)
    return f"; did you mean {by_folded[found[0]]!r}?" if found else ""
