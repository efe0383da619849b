"""What goes wrong over a file's data becomes a RecordingError that names the file.

No file is opened or read here.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flexrec.recorder.errors import RecordingError

__all__ = ["FAILURES", "contained", "told"]

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
def contained(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside is a RecordingError that names the file."""
    try:
        yield
    except RecordingError as error:
        message = str(error)
        if str(path) in message:
            raise
        raise type(error)(f"{path} is damaged: {message}") from None
    except FAILURES as error:
        raise RecordingError(f"{path} is damaged: {told(error)}") from None


def told(error: BaseException) -> str:
    """What an error says, without the quotes that KeyError puts around it."""
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return said[:200] or type(error).__name__
