"""Where a Recorder writes: the path of the file, from the path given; and on which systems."""

import os
import sys
from multiprocessing import parent_process
from pathlib import Path

from flexrec.recorder.errors import InputError, OutputError, RecordingError, warn
from flexrec.recorder.files.atomic_write import make_folder
from flexrec.recorder.files.names import new_name
from flexrec.recorder.files.remote import check_path
from flexrec.recorder.writing.opening.facts import rank


def check_system() -> None:
    """Refuse to record on a system where that does not work.

    Raises:
        RecordingError: the system is Windows.
    """
    if sys.platform == "win32":
        raise RecordingError(
            "flexrec does not record on Windows, where an open file cannot be replaced; record on "
            "Linux, on macOS or in WSL, and look at the recordings on Windows"
        )


def place(path: object, *, resumes: bool = False) -> Path:
    """The path of the file to write; creates its folder.

    `{rank}` is replaced by this process's rank. For an existing folder, or a path that ends with a
    slash, the file in it gets a generated name: the time and a few random digits.

    Raises:
        InputError: `path` is not a path, or begins with `~`.
        OutputError: `path` is a URL, or the folder cannot be created.
        RecordingError: the path is a folder and `resumes` is set.
    """
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(name, str) or not name:
        got = "''" if name == "" else type(name).__name__
        raise InputError(f"path must be a str or a pathlib.Path, got {got}")
    if "{rank}" in name:
        name = name.replace("{rank}", str(_told_rank()))
    _check_home(name)
    check_path(name)
    ends = tuple(filter(None, (os.sep, os.altsep)))
    try:
        if "\0" in os.fsdecode(os.fsencode(name)):
            raise ValueError("it has a null character in it")
        if not (name.endswith(ends) or os.path.isdir(name)):
            _make(Path(name).parent)
            return Path(name)
        if resumes:
            raise RecordingError(
                f"{name} is a folder, in which each new recording gets its own name; to resume "
                "one, give the path of its file"
            )
        _make(Path(name))
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        why = error.strerror if isinstance(error, OSError) else error
        if isinstance(error, FileExistsError):
            why = f"{error.filename} is no folder"
        raise OutputError(f"cannot create {name!r}: {why}") from None
    return Path(name) / f"{new_name()}.h5"


def _told_rank() -> int:
    """This process's rank, 0 where it has none; warns where others may have none either."""
    known = rank()
    if known is None and parent_process() is not None:
        warn(
            "{rank} in a recorder's path is 0: this process was started by another, and has no "
            "rank yet; make the Recorder after torch.distributed.init_process_group, or put the "
            "rank into the path yourself"
        )
    return known or 0


def _check_home(name: str) -> None:
    """Refuse a path such as `~/runs/run.h5`, for which a folder called `~` would be made."""
    first = name.split(os.sep)[0]
    if first.startswith("~") and first != name and not os.path.isdir(first):
        raise InputError(
            f"{name!r}: only a shell knows what {first} is; write os.path.expanduser({name!r})"
        )


def _make(folder: Path) -> None:
    if not os.path.isdir(os.path.realpath(folder)):
        make_folder(folder)
