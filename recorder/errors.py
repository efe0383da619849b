"""The errors of flexrec, and nothing else.

    FlexrecError
    ├── RecordingError          a file cannot be read, or recorded to, as a recording
    │   ├── DamagedError        its data is not as it was written
    │   ├── NotARecordingError  not HDF5, or HDF5 that flexrec did not write
    │   ├── UnknownKeyError     it has no such key (also a KeyError)
    │   └── VersionError        written by a newer flexrec
    ├── OutputError             a file cannot be written (also an OSError)
    │   └── ExistsError         one of its kind is there (also a FileExistsError)
    ├── InputError              a value that cannot be recorded (also a TypeError)
    ├── DefinitionError         a wrong plot, meter, preset or definitions file (also a ValueError)
    ├── GoldenError             a golden is missing, or is none
    ├── MeterError              a meter was fed what it cannot take (also a ValueError)
    ├── MissingDependency       a package is not installed (also an ImportError)
    └── ServerError             visdom's server is absent, silent, not visdom, or refuses

An argument of a Python call that is wrong in itself, as a mode that there is not, is Python's own
ValueError or TypeError. Want of memory is Python's own MemoryError.

A message says what was wrong, what came, what would be right. The next step may be a hint, in the
words of Python's arguments, `overwrite=True`: the command line says it as options (cli/output.py).
"""

import difflib
import sys
import warnings
from collections.abc import Iterable


class FlexrecError(Exception):
    """The root: catch it to catch whatever data, files, definitions and servers bring about.

    Attributes:
        hint: what to do; empty where the message says it.
    """

    def __init__(self, *args: object, hint: str = "") -> None:
        super().__init__(*args)
        self.hint = hint

    @property
    def message(self) -> str:
        """What was wrong, without the hint."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class RecordingError(FlexrecError):
    """A file cannot be read, or recorded to, as a recording."""


class DamagedError(RecordingError):
    """The data in a recording is not as it was written."""

    @classmethod
    def of(cls, path: object, what: str) -> "DamagedError":
        """The error of a recording, and what is wrong in it."""
        return cls(f"{path} is damaged: {what}")


class NotARecordingError(RecordingError):
    """The file is not HDF5, or it is HDF5 that flexrec did not write."""


class UnknownKeyError(RecordingError, KeyError):
    """The recording has no such key."""


class VersionError(RecordingError):
    """The recording was written in a format newer than this flexrec reads."""


class OutputError(FlexrecError, OSError):
    """A file cannot be written: what is there is left alone, or the system refuses."""


class ExistsError(OutputError, FileExistsError):
    """A file of the kind that is to be written is there already, and may not be overwritten."""

    @classmethod
    def of(cls, path: object) -> "ExistsError":
        """The error for a path."""
        return cls(f"{path} exists already", hint="overwrite=True overwrites it")


class InputError(FlexrecError, TypeError):
    """A value given to `add` cannot be recorded."""


class DefinitionError(FlexrecError, ValueError):
    """A plot, meter, preset or definitions file is wrong."""


class GoldenError(FlexrecError):
    """A golden is missing, cannot be read, or is none."""


class MeterError(FlexrecError, ValueError):
    """A meter was fed a value that it cannot take."""


class MissingDependency(FlexrecError, ImportError):  # noqa: N818 - what it is called elsewhere
    """A package that only some of flexrec needs is not installed."""

    @classmethod
    def of(cls, what: str, package: str, hint: str = "") -> "MissingDependency":
        """The error of what needs a package, and how to install it.

        >>> print(MissingDependency.of("an HTML page", "plotly"))
        an HTML page needs plotly, which is not installed: pip install 'plotly>=6'
        """
        wanted = " ".join(f"'{one}'" for one in REQUIREMENTS[package])
        return cls(
            f"{what} needs {package}, which is not installed: pip install {wanted}",
            hint=hint,
        )


class ServerError(FlexrecError):
    """visdom's server is absent, silent, something else than visdom, or refuses; or the files of
    its page cannot be had."""


# As in pyproject.toml's extras. Packages, not extras: flexrec itself may be on no index.
REQUIREMENTS = {
    "pandas": ("pandas",),
    "plotly": ("plotly>=6",),
    "pyarrow": ("pyarrow>=16.1",),
    "torch": ("torch>=2.6",),
    "visdom": ("visdom>=0.2.4", "tornado<6.6"),
}


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
