"""What HDF5 and the system say of a file, as errors of ours. No file is opened or read here.

Only what HDF5 cannot make sense of is damage. What the system refuses is told in its words, want of
memory is a MemoryError, and a bug of ours is none of these: so the blocks that catch HDF5_ERRORS
hold calls of h5py and nothing else that may raise them.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flexrec.recorder.errors import DamagedError, RecordingError

HDF5_ERRORS = (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What h5py raises over a file that is not what it should be."""


def read_error(path: Path, error: BaseException) -> RecordingError:
    """What one of HDF5_ERRORS means that came up as a file was read."""
    number = errno_of(error)
    if number:
        return RecordingError(f"{path} cannot be read: {os.strerror(number)}")
    return DamagedError.of(path, first_line(error))


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
