"""Convert low-level read errors of HDF5 and the system to RecordingErrors.

Only data that HDF5 cannot interpret counts as damage. Errors of the system keep its message, and
lack of memory is a MemoryError. Bugs in flexrec must not look like any of these: an error that
did not come out of h5py is raised as it is. This module opens and reads no files.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flexrec.recorder.errors import DamagedError, RecordingError

HDF5_ERRORS = (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""The exceptions that h5py raises for an invalid file."""


def read_error(path: Path, error: BaseException) -> RecordingError:
    """Convert one of HDF5_ERRORS, raised while reading a file, to a RecordingError.

    Raises:
        BaseException: the error itself, if it came neither out of h5py nor from the system.
    """
    number = errno_of(error)
    if number:
        return RecordingError(f"{path} cannot be read: {os.strerror(number)}")
    if not _is_of_h5py(error):
        raise error
    return DamagedError.of(path, first_line(error))


def _is_of_h5py(error: BaseException) -> bool:
    """Whether code of h5py raised the error, or called what did, such as `UnclosedFile`."""
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_globals.get("__name__", "").startswith("h5py"):
            return True
        at = at.tb_next
    return False


@contextmanager
def traced() -> Iterator[None]:
    """Context manager: raise errors of the system as OSErrors with the system's message.

    HDF5's own message is about addresses, or only about the failure to close the file.
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
    """The errno of an error, parsed from HDF5's message if needed; 0 if there is none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"\berrno = (\d+)", str(error))
    return int(found[1]) if found else 0


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the quotes that KeyError adds."""
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return said[:200] or type(error).__name__
