"""Files that are made beside the path that they are for, and put there whole.

Whatever flexrec writes goes through `check_target`, which refuses a path that must not be written,
and through `put_in_place`. How a file of each kind is told, its writer knows.
"""

import errno
import fcntl
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

_PURPOSES = ("making", "closing", "keeping")
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_MOST_NAME = 255  # bytes
_ADDED = len("..01234567.partial")  # what the longest name beside another has more than that
_ACCESS_LIST = "system.posix_acl_access"
_NO_FOLDER_SYNC = {errno.EACCES, errno.EINVAL, errno.ENOTSUP}  # a folder that cannot be synced


@dataclass(frozen=True)
class Kind:
    """A kind of file that flexrec writes: it replaces files of the same kind alone.

    Attributes:
        name: as messages have it, with its article.
        holds: whether a regular file that is not empty is one, told by its content.
    """

    name: str
    holds: Callable[[Path], bool]


ANYTHING = Kind("a file", lambda _: True)
"""Any regular file: for paths that nobody but flexrec chooses."""


def check_target(
    path: str | os.PathLike[str],
    kind: Kind,
    *,
    overwrite: bool = False,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Path:
    """Return where a file for this path is to be put: what a link points to, not the link.

    An empty regular file, as mktemp(1) makes them, counts as any kind.

    Args:
        path: what is to be written.
        kind: what it is to be.
        overwrite: whether a file of this kind may be there.
        inputs: files that are read for it; none of them is ever written.

    Raises:
        ExistsError: a file of this kind is there, and may not be overwritten.
        OutputError: it is an input, no regular file, or a file of another kind.
        OSError: what is there cannot be looked at.
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
        raise ExistsError.of(path)
    return target


def check_name(path: str | os.PathLike[str]) -> None:
    """Refuse what ends as the name of a folder does, where no folder is; a Path has lost that.

    Raises:
        OutputError: so it is.
    """
    name = os.fspath(path)
    if name.endswith(os.sep) and not os.path.isdir(name):
        raise OutputError(
            f"{name} ends with a slash, as a folder's name, and there is no such folder; give the "
            "path of a file"
        )


def check_source(path: Path) -> None:
    """Refuse to read what is no regular file: reading a pipe, say, would not end.

    Raises:
        RecordingError: it is none, does not exist, or cannot be looked at.
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
    """What a file is that is no regular one, told by its mode."""
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
    """A path to write, beside the one whose place it takes where nothing was raised.

        with replacing("run.json", ENVIRONMENT) as partial:
            partial.write_text("{}")

    What a killed process left beside the path is removed first. Arguments and what is raised are
    those of `check_target`.

    Raises:
        OSError: it cannot be put in place; what was there is untouched.
    """
    target = check_target(path, kind, overwrite=overwrite, inputs=inputs)
    _clear_partials(target)
    with _partial(target) as partial:
        yield partial
        put_in_place(partial, target, kind, overwrite=overwrite)


def discard(path: Path, kind: Kind, *, inputs: Iterable[Path] = ()) -> None:
    """Remove the file where it is of this kind; leave links, inputs, and what else may be there."""
    with suppress(OSError):
        if not path.is_symlink():
            check_target(path, kind, overwrite=True, inputs=inputs)
            path.unlink(missing_ok=True)


# ---------------------------------------------------------------------- while it is written


def beside(path: Path, purpose: str) -> Path:
    """Where what is to take the path's place is made.

    >>> beside(Path("run.h5"), "closing").name
    '.run.h5.closing'

    What would make too long a name begins with a part of the path's name, and a hash of it.
    """
    name = path.name
    if len(os.fsencode(name)) + _ADDED > _MOST_NAME:
        name = _short(name, _MOST_NAME - _ADDED)
    return path.with_name(f".{name}.{purpose}")


def _short(name: str, size: int) -> str:
    """A name of at most so many bytes that is this one's alone."""
    whole = os.fsencode(name)
    digest = hashlib.sha256(whole).hexdigest()[:16]
    return f"{whole[: size - 17].decode('utf-8', 'ignore')}-{digest}"


def begin(path: Path, purpose: str, *, like: Path | None = None) -> Path:
    """Make an empty file beside the path, to be written and then put there by `put_in_place`.

    Only its owner can read it meanwhile, unless the path is new.

    Args:
        path: where it is to be put.
        purpose: what tells it from other files beside the path.
        like: as for `put_in_place`.
    """
    made = beside(path, purpose)
    made.unlink(missing_ok=True)
    os.close(_new(made, path, like))
    return made


def _new(made: Path, path: Path, like: Path | None = None) -> int:
    is_new = not (path.exists() or like)
    return os.open(made, _NEW, 0o666 if is_new else 0o600)


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A file beside the path, locked as long as this process lives and writes it."""
    while True:
        made = beside(path, f"{secrets.token_hex(4)}.partial")
        descriptor = _new(made, path)
        with suppress(OSError):  # a file system without locks: then nobody removes it either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # removed between the two as a dead process's
    try:
        yield made
    finally:
        with suppress(OSError):  # in a folder that keeps its files
            made.unlink(missing_ok=True)
        os.close(descriptor)


def _clear_partials(path: Path) -> None:
    """Remove what killed processes were about to put at the path; best effort."""
    begins = re.escape(beside(path, "").name)
    name = re.compile(rf"{begins}[0-9a-f]+\.partial")
    with suppress(OSError):
        for partial in [each for each in path.parent.iterdir() if name.fullmatch(each.name)]:
            with suppress(OSError):
                _remove_unlocked(partial)


def _remove_unlocked(partial: Path) -> None:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(partial, flags)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------------- put there


def put_in_place(
    made: Path, path: Path, kind: Kind, *, overwrite: bool = False, like: Path | None = None
) -> None:
    """Rename to the path, for good: it holds the old file or the new one, whole.

    Without `overwrite` nothing is replaced, not even what comes there at this very moment, where
    the file system has hard links.

    Mode, group and extended attributes are those of the file that is replaced.

    Args:
        made: a file of `begin`, beside the path; whoever wrote it has closed it, or writes no
            more of what has to survive a loss of power.
        path: a path of `check_target`, which is checked again, at last just before it is renamed.
        kind, overwrite: as for `check_target`.
        like: whose mode, group and attributes it has where nothing is replaced.

    Raises:
        OutputError: as for `check_target`.
        OSError: it cannot be synced or renamed.
    """
    check_target(path, kind, overwrite=overwrite)
    old = path if path.exists() else like
    if old is not None:
        _take_over(old, made)
    # Not sooner: HDF5 writes to a file as it closes it.
    _sync(made)
    check_target(path, kind, overwrite=overwrite)  # the sync may have taken long
    if overwrite:
        os.replace(made, path)
    else:
        _move(made, path, kind)
    try:
        _sync(path.parent)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def _move(made: Path, path: Path, kind: Kind) -> None:
    """Rename to where nothing is: rename(2) would replace what has come there meanwhile."""
    try:
        os.link(made, path)
    except FileExistsError:
        check_target(path, kind)
        raise ExistsError.of(path) from None  # a link to nowhere
    except OSError:  # a file system without hard links
        check_target(path, kind)
        os.replace(made, path)
    else:
        with suppress(OSError):  # the file is there; in a folder that keeps its files, both are
            made.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_over(old: Path, made: Path) -> None:
    """Give the file the other's owner, group, attributes and mode, as far as is allowed.

    Where the group or the access list cannot be had, the group may do what everybody may.
    """
    status = old.stat()
    for user in (status.st_uid, -1):
        with suppress(OSError):
            os.chown(made, user, status.st_gid)
            break
    mode = stat.S_IMODE(status.st_mode)
    has_list = _copy_attributes(old, made)
    if made.stat().st_gid != status.st_gid or not has_list:
        mode &= ~0o070 | (mode & 0o007) << 3
    with suppress(OSError):
        made.chmod(mode)


def _copy_attributes(old: Path, made: Path) -> bool:
    """Copy extended attributes; return whether the access lists are the same."""
    if not hasattr(os, "listxattr"):
        return True
    there, here = _attributes(old), _attributes(made)
    for name in {name for name, _ in there.items() ^ here.items()}:
        with suppress(OSError):
            if name in there:
                os.setxattr(made, name, there[name])
            elif name == _ACCESS_LIST:  # the folder's default, which the old file had not
                os.removexattr(made, name)
    return there.get(_ACCESS_LIST) == _attributes(made).get(_ACCESS_LIST)


def _attributes(path: Path) -> dict[str, bytes]:
    found = dict[str, bytes]()
    with suppress(OSError):
        for name in os.listxattr(path):
            with suppress(OSError):
                found[name] = os.getxattr(path, name)
    return found


# ---------------------------------------------------------------------- recordings


def clear_litter(path: Path) -> None:
    """Remove what a killed recorder was about to put at the path; the lock must be held."""
    for purpose in _PURPOSES:
        beside(path, purpose).unlink(missing_ok=True)


def unused(path: Path, word: str) -> Path:
    """A path beside this one where nothing is, its name with the word in it: `run.original.h5`."""
    stem, room = path.stem, _MOST_NAME - len(os.fsencode(f".{word}9999{path.suffix}"))
    if len(os.fsencode(stem)) > room:
        stem = _short(stem, room)
    names = (f"{stem}.{word}{i or ''}{path.suffix}" for i in range(10_000))
    return next(n for n in map(path.with_name, names) if not os.path.lexists(n))


def keep(path: Path) -> Path:
    """Give the file a second name, `run.original.h5`, before another takes its place."""
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
    """A block that writes a file: where the system refuses, an OutputError says why in one line."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """What the system refused, as an error that names the path."""
    made = OutputError(f"cannot write {path}: {error.strerror or error}")
    made.errno = error.errno
    return made
