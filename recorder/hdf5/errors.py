"""Convert low-level read errors of HDF5 and the system to RecordingErrors.

Only data that HDF5 cannot interpret counts as damage. Errors of the system keep its message, and
lack of memory is a MemoryError. Bugs in flexrec must not look like any of these: an error that
h5py did not raise is raised as it is. This module opens and reads no files.
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
        BaseException: the error itself, if neither h5py nor the system raised it.
    """
    number = errno_of(error)
    if number:
        return RecordingError(f"{path} cannot be read: {os.strerror(number)}")
    if not is_damage(error):
        raise error
    return DamagedError.of(path, first_line(error))


def is_damage(error: BaseException) -> bool:
    """Whether one of HDF5_ERRORS says that HDF5 cannot interpret data.

    h5py calls back code of flexrec, such as `UnclosedFile`. Of the errors raised there, only an
    OSError is about the data; it says that the file is too short.
    """
    if errno_of(error) or isinstance(error, RecursionError):
        return False
    at, packages = error.__traceback__, list[str]()
    while at is not None:
        packages.append(at.tb_frame.f_globals.get("__name__", "").partition(".")[0])
        at = at.tb_next
    if "h5py" not in packages:
        return False
    called = packages[::-1][: packages[::-1].index("h5py")]  # by h5py
    return isinstance(error, OSError) or "flexrec" not in called


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
