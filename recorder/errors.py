"""flexrec's exceptions and warnings, and helpers for the wording of messages.

    FlexrecError
    ├── RecordingError          a file cannot be read, or recorded to, as a recording
    │   ├── DamagedError        its data is damaged
    │   ├── NotARecordingError  not HDF5, or HDF5 that flexrec did not write
    │   ├── UnknownKeyError     the recording has no such key (also a KeyError)
    │   └── VersionError        written by a newer flexrec
    ├── OutputError             a file cannot be written (also an OSError)
    │   └── ExistsError         the file exists already (also a FileExistsError)
    ├── InputError              a value that cannot be recorded (also a TypeError)
    ├── DefinitionError         a wrong plot, meter, preset or definitions file (also a ValueError)
    ├── GoldenError             a golden is missing, unreadable, or not a golden
    ├── MeterError              a meter was given a value it cannot take (also a ValueError)
    ├── QueryError              a wrong expression about runs (also a ValueError)
    ├── MissingDependency       a package is not installed (also an ImportError)
    ├── ServerError             no visdom server answers, or it refuses a request
    └── WorkerError             processes that read recordings cannot be reached, or died

An argument that is wrong in itself, such as an unknown mode, raises Python's ValueError or
TypeError; running out of memory raises MemoryError.

A message says what is wrong, which value was given and which are accepted. The next step may be a
hint in terms of Python arguments, such as `overwrite=True`, which cli/output.py replaces by
command-line options.
"""

import difflib
import sys
import warnings
from collections.abc import Iterable

_NAMES: dict[str, str] = {}  # what messages call paths, such as the URL of a temporary copy


def call(path: str, name: str) -> None:
    """Let messages of errors and warnings call a path, and paths in it, by another name."""
    _NAMES[path] = name


def call_no_more(path: str) -> None:
    """Let messages name a path, and paths in it, as they are."""
    for each in [each for each in _NAMES if each.startswith(path)]:
        del _NAMES[each]


def named(text: str) -> str:
    """The text with paths as messages name them."""
    for path, name in list(_NAMES.items()):  # another thread may add one
        text = text.replace(path, name)
    return text


class FlexrecError(Exception):
    """Base class of flexrec's errors about data, files, definitions and servers.

    Attributes:
        hint: what to do about the error; empty if the message says it.
    """

    def __init__(self, *args: object, hint: str = "") -> None:
        super().__init__(*(named(arg) if isinstance(arg, str) else arg for arg in args))
        self.hint = hint

    @property
    def message(self) -> str:
        """What is wrong, without the hint."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class RecordingError(FlexrecError):
    """A file cannot be read, or recorded to, as a recording."""


class DamagedError(RecordingError):
    """The data of a recording is damaged: it differs from what was written."""

    @classmethod
    def of(cls, path: object, what: str) -> "DamagedError":
        """The error for the recording at `path`; `what` says what is wrong with it."""
        return cls(f"{path} is damaged: {what}")


class NotARecordingError(RecordingError):
    """The file is not HDF5, or it is HDF5 that flexrec did not write."""


class UnknownKeyError(RecordingError, KeyError):
    """The recording has no such key."""


class VersionError(RecordingError):
    """The recording has a newer format than this flexrec can read."""


class OutputError(FlexrecError, OSError):
    """A file cannot be written: flexrec does not overwrite it, or the system refuses."""


class ExistsError(OutputError, FileExistsError):
    """A file of the kind to be written exists already, and overwriting was not requested."""

    @classmethod
    def of(cls, path: object) -> "ExistsError":
        """The error for a path."""
        return cls(f"{path} exists already", hint="overwrite=True overwrites it")


class InputError(FlexrecError, TypeError):
    """A value given to `add` cannot be recorded."""


class DefinitionError(FlexrecError, ValueError):
    """A plot, meter, preset or definitions file is wrong."""


class GoldenError(FlexrecError):
    """A golden is missing, cannot be read, or is not a golden."""


class MeterError(FlexrecError, ValueError):
    """A meter was given a value that it cannot take."""


class QueryError(FlexrecError, ValueError):
    """An expression that chooses, sorts or groups runs is wrong, or names no column."""


class MissingDependency(FlexrecError, ImportError):  # noqa: N818 - the customary name
    """An optional package is not installed, or cannot be imported."""

    @classmethod
    def of(cls, what: str, package: str, hint: str = "") -> "MissingDependency":
        """The error for a feature that needs `package`; the message says how to install it.

        >>> print(MissingDependency.of("an HTML page", "plotly"))
        an HTML page needs plotly, which is not installed: pip install 'plotly>=6.1'
        """
        found = sys.exception()  # installed, but broken, or there was no memory for it
        if isinstance(found, ImportError) and not isinstance(found, ModuleNotFoundError):
            return cls(f"{what} needs {package}, which cannot be imported: {found}", hint=hint)
        wanted = " ".join(f"'{one}'" for one in REQUIREMENTS[package])
        return cls(
            f"{what} needs {package}, which is not installed: pip install {wanted}",
            hint=hint,
        )


class ServerError(FlexrecError):
    """No visdom server answers, or it refuses; or the files of its page are unavailable."""


class WorkerError(FlexrecError):
    """Workers that read recordings, or their scheduler, cannot be reached, are unfit, or died."""


# As in pyproject.toml's extras. Packages, not extras, since flexrec may not be on an index.
REQUIREMENTS = {
    "distributed": ("distributed>=2024.8",),
    "fsspec": ("fsspec>=2024.2",),
    "mlflow": ("mlflow-skinny>=3",),
    "pandas": ("pandas",),
    "plotly": ("plotly>=6.1",),
    "psutil": ("psutil>=5.9.5",),
    "pyarrow": ("pyarrow>=16.1",),
    "pyyaml": ("pyyaml",),
    "tensorboard": ("tensorboard>=2.16",),
    "torch": ("torch>=2.6",),
    "trackio": ("trackio>=0.43",),
    "visdom": ("visdom>=0.2.4", "tornado<6.6"),
    "wandb": ("wandb>=0.17",),
}


def nearest(name: str, known: Iterable[str]) -> str:
    """A suffix for an error message that suggests the most similar known name, or "".

    >>> nearest("MSE", ["AUCMeter", "MSEMeter"])
    "; did you mean 'MSEMeter'?"
    """
    wanted, by_folded = name.lower(), dict[str, list[str]]()
    for candidate in known:
        by_folded.setdefault(candidate.lower(), []).append(candidate)
    found = difflib.get_close_matches(wanted, by_folded, n=1, cutoff=0.6)
    found = found or [folded for folded in by_folded if len(wanted) > 1 and wanted in folded]
    if not found:
        return ""
    (best,) = difflib.get_close_matches(name, by_folded[found[0]], n=1, cutoff=0.0)  # Loss or loss
    return f"; did you mean {best!r}?"


def warn(message: str) -> None:
    """Give a RuntimeWarning at the line of the user's code that called into flexrec."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("flexrec."):
        frame, level = frame.f_back, level + 1
    warnings.warn(named(message), RuntimeWarning, stacklevel=level)


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless the number is 1.

    >>> counted(1, "window"), counted(1200, "event")
    ('1 window', '1,200 events')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listed(names: Iterable[str], most: int = 10) -> str:
    """The first `most` names, and how many more there are.

    >>> listed(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    known = list(names)
    more = f" and {len(known) - most:,} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\n\t"}
# Bidirectional controls, and line and paragraph separators.
_MARKS = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_CONTROLS |= {c: f"\\u{c:04x}" for c in _MARKS}
_BREAKS = {ord("\n"): "\\n", ord("\t"): "\\t"}


def one_line(text: str) -> str:
    """Escape control characters as `printable` does, and line breaks and tabs too.

    >>> one_line("loss\\nconfig: {}")
    'loss\\\\nconfig: {}'
    """
    return printable(text).translate(_BREAKS)


def printable(text: str) -> str:
    """Escape control characters, except line breaks and tabs, and bidirectional controls.

    >>> printable("loss\\x1b[2J")
    'loss\\\\x1b[2J'
    """
    if text.isprintable():  # as most are
        return text
    return text.translate(_CONTROLS).encode("utf-8", "replace").decode("utf-8")
