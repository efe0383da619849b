"""Write files atomically: create them beside their path, then rename them.

Everything flexrec writes goes through `check_target`, which refuses a path that must not be
written, and `put_in_place`. The writer of each kind of file defines how the kind is recognised.
"""

import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flexrec.recorder.errors import ExistsError, OutputError, RecordingError
from flexrec.recorder.files.attributes import take_over, tell_lost
from flexrec.recorder.files.descriptors import SPECIAL_UNTOUCHED, open_binary
from flexrec.recorder.files.flock import try_lock
from flexrec.recorder.files.remote import check_path
from flexrec.recorder.files.rename import (
    RENAMES_OPEN_FILES,
    move,
    remove_and_close,
    replace,
    sync_file,
    sync_name,
)

_PURPOSES = ("making", "closing", "keeping")
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL
_MOST_NAME = 255  # bytes
_ADDED = len("..01234567.partial")  # the most that the name of a file beside another adds to it


@dataclass(frozen=True)
class Kind:
    """A kind of file that flexrec writes; it only replaces files of the same kind.

    Attributes:
        name: its name in messages, with an article.
        holds: whether a regular, non-empty file is of this kind, judged by its content.
    """

    name: str
    holds: Callable[[Path], bool]


ANYTHING = Kind("a file", lambda _: True)
"""Any regular file: for paths that only flexrec chooses."""


def check_target(
    path: str | os.PathLike[str],
    kind: Kind,
    *,
    overwrite: bool = False,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Path:
    """Check that a path may be written; return the path to write, with links resolved.

    An empty regular file, such as mktemp(1) creates, counts as any kind.

    Args:
        path: the path to write.
        kind: the kind of file to write.
        overwrite: whether an existing file of this kind may be overwritten.
        inputs: files that are read meanwhile; none of them is ever written.

    Raises:
        ExistsError: a file of this kind exists, and may not be overwritten.
        OutputError: the path is an input, not a regular file, or a file of another kind.
        OSError: the existing file cannot be examined.
    """
    check_name(path)
    path = Path(path)
    target = Path(os.path.realpath(path))
    try:
        status = target.stat()
    except FileNotFoundError:
        return target
    for given in inputs:
        if os.path.samestat(status, os.stat(given)):
            raise OutputError(f"{path} is read here, so it is not written; choose another path")
    left = "it is left as it is; choose another path"
    if not stat.S_ISREG(status.st_mode):
        raise OutputError(f"{path} is {what(status.st_mode)}, not a regular file: {left}")
    if status.st_size and not kind.holds(target):
        raise OutputError(f"{path} is there already and is not {kind.name}: {left}")
    if not overwrite:
        _clear_partials(target)  # a killed process may have left this file's first name
        raise ExistsError.of(path)
    return target


def check_name(path: str | os.PathLike[str]) -> None:
    """Refuse a URL, and a path that ends with a slash where there is no folder.

    A Path drops such a slash, and one of a URL's two.

    Raises:
        OutputError: the path is such.
    """
    check_path(path)
    name = os.fspath(path)
    if name.endswith((os.sep, os.altsep or os.sep)) and not os.path.isdir(name):
        raise OutputError(
            f"{name} ends with a slash, as a folder's name, and there is no such folder; give the "
            "path of a file"
        )


def check_source(path: Path) -> None:
    """Refuse to read anything but a regular file: reading a pipe, for example, might never end.

    Raises:
        RecordingError: the file is not regular, does not exist, or cannot be examined.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise RecordingError(f"{path} does not exist; give the path of a recording") from error
    except OSError as error:
        raise RecordingError(f"{path} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise RecordingError(f"{path} is {what(mode)}; give the path of a recording")


def what(mode: int) -> str:
    """The name of a non-regular file's type, by its mode."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISLNK(mode):
        return "a link"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


@contextmanager
def replacing(
    path: str | os.PathLike[str],
    kind: Kind,
    *,
    overwrite: bool = False,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[Path]:
    """Context manager: a temporary path to write, which replaces `path` if no error is raised.

        with replacing("run.json", ENVIRONMENT) as partial:
            partial.write_text("{}")

    Files that killed processes left beside the path are removed first. Arguments and errors are
    those of `check_target`.

    Raises:
        OSError: the file cannot be put in place; the old file is untouched.
    """
    target = check_target(path, kind, overwrite=overwrite, inputs=inputs)
    _clear_partials(target)
    partial = _Partial(target)
    try:
        yield partial.path
        if not RENAMES_OPEN_FILES:
            partial.unlock()
        put_in_place(partial.path, target, kind, overwrite=overwrite)
    finally:
        partial.remove()


def discard(path: Path, kind: Kind, *, inputs: Iterable[Path] = ()) -> None:
    """Remove the file if it is of this kind; leave links, inputs and anything else."""
    with suppress(OSError):
        if not path.is_symlink():
            check_target(path, kind, overwrite=True, inputs=inputs)
            path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create a folder and those above it that are missing, and sync their names."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_name(each)


# ---------------------------------------------------------------------- while it is written


def beside(path: Path, purpose: str) -> Path:
    """The path of a temporary file that will replace `path`.

    >>> beside(Path("run.h5"), "closing").name
    '.run.h5.closing'

    If the name would be too long, it has a shortened form of the path's name and a hash of it.
    """
    name = path.name
    if len(os.fsencode(name)) + _ADDED > _MOST_NAME:
        name = _short(name, _MOST_NAME - _ADDED)
    return path.with_name(f".{name}.{purpose}")


def _short(name: str, size: int) -> str:
    """A unique name of at most `size` bytes for a longer one."""
    whole = os.fsencode(name)
    digest = hashlib.sha256(whole).hexdigest()[:16]
    return f"{whole[: size - 17].decode('utf-8', 'ignore')}-{digest}"


def begin(path: Path, purpose: str, *, like: Path | None = None) -> Path:
    """Create an empty file beside the path, to be written and renamed by `put_in_place`.

    Until then only its owner can read it, unless the path is new.

    Args:
        path: the final path.
        purpose: a suffix that distinguishes it from other files beside the path.
        like: as for `put_in_place`.
    """
    made = beside(path, purpose)
    made.unlink(missing_ok=True)
    os.close(_new(made, path, like))
    return made


def _new(made: Path, path: Path, like: Path | None = None) -> int:
    is_new = not (path.exists() or like)
    return open_binary(made, _NEW, 0o666 if is_new else 0o600)


class _Partial:
    """A new file beside a path, locked while this process writes it.

    Attributes:
        path: the file.
    """

    def __init__(self, target: Path) -> None:
        while True:
            self.path = beside(target, f"{secrets.token_hex(4)}.partial")
            self._descriptor = _new(self.path, target)
            if self._lock():
                break
            self.unlock()  # another process took it for one that a killed process left

    def _lock(self) -> bool:
        """Lock the file; return whether it still exists."""
        try:
            if not try_lock(self._descriptor):
                return False
        except OSError:  # no locks on this file system: then nobody removes it either
            pass
        return bool(os.fstat(self._descriptor).st_nlink)

    def unlock(self) -> None:
        """Close the descriptor, which ends the lock; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def remove(self) -> None:
        """Remove the file if it is still there, and end the lock."""
        descriptor, self._descriptor = self._descriptor, -1
        with suppress(OSError):  # the folder may not allow removing files
            if descriptor >= 0:
                remove_and_close(self.path, descriptor)
            else:
                self.path.unlink(missing_ok=True)


def _clear_partials(path: Path) -> None:
    """Remove the partial files that killed processes left beside the path, if possible."""
    begins = re.escape(beside(path, "").name)
    name = re.compile(rf"{begins}[0-9a-f]+\.partial")
    with suppress(OSError):
        for partial in [each for each in path.parent.iterdir() if name.fullmatch(each.name)]:
            with suppress(OSError):
                _remove_unlocked(partial)


def _remove_unlocked(partial: Path) -> None:
    descriptor = open_binary(partial, os.O_RDWR | SPECIAL_UNTOUCHED)
    try:
        is_left = stat.S_ISREG(os.fstat(descriptor).st_mode) and try_lock(descriptor)
    except OSError:
        is_left = False
    if is_left:
        remove_and_close(partial, descriptor)
    else:
        os.close(descriptor)


# ---------------------------------------------------------------------- putting in place


def put_in_place(
    made: Path, path: Path, kind: Kind, *, overwrite: bool = False, like: Path | None = None
) -> None:
    """Sync a file and rename it to the path, which always holds the whole old or new file.

    Without `overwrite` nothing is replaced, not even a file created at the same moment, if the
    file system has hard links. Mode, group and extended attributes are those of the replaced file.

    Args:
        made: a file from `begin`. Its writer has closed it, or no longer writes data that must
            survive a loss of power.
        path: a path from `check_target`; it is checked again, also just before renaming.
        kind, overwrite: as for `check_target`.
        like: the file whose mode, group and attributes to use if nothing is replaced.

    Raises:
        OutputError: as for `check_target`.
        OSError: the file cannot be synced or renamed.
    """
    check_target(path, kind, overwrite=overwrite)
    old = path if path.exists() else like
    lost = [] if old is None else take_over(old, made)
    # Not sooner, since HDF5 writes to a file when closing it.
    sync_file(made)
    check_target(path, kind, overwrite=overwrite)  # the sync may have taken long
    if overwrite:
        replace(made, path)
    else:
        try:
            move(made, path)
        except FileExistsError:
            check_target(path, kind)
            raise ExistsError.of(path) from None  # a link to nowhere
    sync_name(path)
    tell_lost(path, lost)


# ---------------------------------------------------------------------- recordings


def clear_litter(path: Path) -> None:
    """Remove the temporary files of a killed recorder; the path's lock must be held."""
    for purpose in _PURPOSES:
        beside(path, purpose).unlink(missing_ok=True)


def unused(path: Path, word: str) -> Path:
    """An unused path beside this one, with `word` in its name, such as `run.original.h5`."""
    stem, room = path.stem, _MOST_NAME - len(os.fsencode(f".{word}9999{path.suffix}"))
    if len(os.fsencode(stem)) > room:
        stem = _short(stem, room)
    names = (f"{stem}.{word}{i or ''}{path.suffix}" for i in range(10_000))
    return next(n for n in map(path.with_name, names) if not os.path.lexists(n))


def keep(path: Path) -> Path:
    """Give the file a second name, such as `run.original.h5`, before another file replaces it."""
    original = unused(path, "original")
    try:
        os.link(path, original)
    except OSError:  # a file system without hard links
        _copy(path, original)
    return original


def _copy(path: Path, to: Path) -> None:
    made = begin(path, "keeping")
    try:
        shutil.copyfile(path, made)
        status = path.stat()
        os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))
        put_in_place(made, to, ANYTHING, like=path)
    finally:
        made.unlink(missing_ok=True)


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Context manager: convert OSErrors from writing `path` to OutputErrors of one line."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """The OutputError for an OSError from writing `path`."""
    made = OutputError(f"cannot write {path}: {error.strerror or error}")
    made.errno = error.errno
    return made
