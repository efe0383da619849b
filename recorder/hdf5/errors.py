"""What goes wrong over a file's data becomes a RecordingError that names the file.

No file is opened or read here.
"""

import os
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flexrec.recorder.errors import RecordingError

# What h5py, numpy, zlib and Python raise over data that is not what it should be.
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@contextmanager
def as_recording_error(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside is a RecordingError that names the file."""
    try:
        yield
    except RecordingError as error:
        message = str(error)
        if str(path) in message:
            raise
        raise type(error)(f"{path} is damaged: {message}") from None
    except FAILURES as error:
        raise RecordingError(f"{path} is damaged: {first_line(error)}") from None


@contextmanager
def traced() -> Iterator[None]:
    """What the system refused inside is an OSError with its own words.

    HDF5 goes on about addresses; and where it cannot close a file either, says only that.
    """
    outer = sys.exception()
    try:
        yield
    except (OSError, RuntimeError) as error:
        at: BaseException | None = error
        while at is not None and at is not outer:
            number = errno_of(at)
            if number:
                raise OSError(number, os.strerror(number)) from error
            at = at.__context__
        raise


def errno_of(error: BaseException) -> int:
    """The system's number of what went wrong, which HDF5 names in its words; 0: there is none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"\berrno = (\d+)", str(error))
    return int(found[1]) if found else 0


def first_line(error: BaseException) -> str:
    """What an error says, without the quotes that KeyError puts around it."""
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return said[:200] or type(error).__name__
