"""Write folders of files as a whole: beside their path, then renamed to it.

A folder is only replaced if every file in it is of a kind that flexrec writes there, and nothing
else is ever removed.
"""

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from flexrec.recorder.errors import ExistsError, OutputError
from flexrec.recorder.files.atomic_write import Kind, beside, make_folder, what
from flexrec.recorder.files.attributes import take_over, tell_lost
from flexrec.recorder.files.descriptors import SPECIAL_UNTOUCHED, open_binary
from flexrec.recorder.files.flock import try_lock
from flexrec.recorder.files.rename import sync_file, sync_name

_LITTER = 3600.0  # seconds after which a folder that nothing was written to is taken for litter
_HELD = -1  # in place of a lock: another process has it
_REPLACED = "replaced"  # the purpose of a whole folder beside its path, until another is in place


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that flexrec writes.

    Attributes:
        name: its name in messages, with an article.
        files: the kinds of the files in it, by patterns of their paths, such as `values/*.parquet`.
    """

    name: str
    files: Mapping[str, Kind]


def check_folder(path: Path, kind: FolderKind, *, overwrite: bool = False) -> Path:
    """Check that a folder may be written; return its path with links resolved.

    An empty folder counts as any kind.

    Raises:
        ExistsError: a folder of this kind exists, and may not be overwritten.
        OutputError: the path is no folder, or one that holds anything else.
    """
    target = Path(os.path.realpath(path))
    if not os.path.lexists(target):
        return target
    left = "it is left as it is; choose another path"
    if not target.is_dir():
        found = "a file" if target.is_file() else what(target.stat().st_mode)
        raise OutputError(f"{path} is {found}, not a folder: {left}")
    for file in _files(target):
        if not _is_of(file, target, kind):
            inside = file.relative_to(target)
            raise OutputError(f"{path} is not {kind.name}, since it holds {inside}: {left}")
        if not overwrite:
            raise ExistsError.of(path)
    return target


@contextmanager
def replacing_folder(path: Path, kind: FolderKind, *, overwrite: bool = False) -> Iterator[Path]:
    """Context manager: a new folder to fill, which replaces `path` if no error is raised.

    What killed processes left beside the path is removed first; a folder that one of them moved
    away and did not replace is put back. Mode, group and extended attributes are those of the
    replaced folder, and of the files with the same names in it. Arguments and errors are those of
    `check_folder`.

    Raises:
        OSError: the folder cannot be put in place; the old one is untouched.
    """
    _put_back(Path(os.path.realpath(path)))
    target = check_folder(path, kind, overwrite=overwrite)
    make_folder(target.parent)
    _clear_litter(target, kind)
    made, lock = _made_beside(target)
    try:
        # Before files are created in it, which inherit from it.
        lost = set(take_over(target, made) if target.exists() else ())
        yield made
        for each in made.rglob("*"):
            old = target / each.relative_to(made)
            lost.update(take_over(old, each) if old.exists() else ())
        files = list(_files(made))
        for file in files:
            sync_file(file)
        for folder in {made, *(file.parent for file in files)}:
            sync_name(target, folder)
        check_folder(path, kind, overwrite=overwrite)
        _put_in_place(made, target, kind)
        tell_lost(target, sorted(lost))
    finally:
        _remove(made, kind)
        _unlock(lock)


def _put_in_place(made: Path, target: Path, kind: FolderKind) -> None:
    if not target.exists():
        made.rename(target)
    else:
        old, litter = beside(target, _REPLACED), _new_name(target)
        lock = _locked(target)
        try:
            target.rename(old)
            try:
                made.rename(target)
            except OSError:
                old.rename(target)
                raise
            old.rename(litter)  # before it is no longer whole
            _remove(litter, kind)
        finally:
            _unlock(lock)
    sync_name(target)


def _put_back(target: Path) -> None:
    """Give a folder its name back if a process was killed before another had that name.

    If another has it, the folder becomes litter.
    """
    old = beside(target, _REPLACED)
    if old.is_symlink() or not old.is_dir():
        return
    lock = _locked(old)
    try:
        if lock != _HELD:
            old.rename(_new_name(target) if os.path.lexists(target) else target)
    finally:
        _unlock(lock)


def _new_name(target: Path) -> Path:
    """A name beside the target, of a folder that is litter if its maker is killed."""
    return beside(target, f"{secrets.token_hex(4)}.partial")


def _made_beside(target: Path) -> tuple[Path, int | None]:
    """A new folder beside the target, and its lock."""
    while True:
        made = _new_name(target)
        made.mkdir(0o700 if target.exists() else 0o777)
        lock = _locked(made)
        if made.exists() and lock != _HELD:  # else another process took it for litter
            return made, lock
        _unlock(lock)


def _locked(folder: Path) -> int | None:
    """Lock a folder; the lock, _HELD if another process has it, or None if there are no locks."""
    try:
        descriptor = open_binary(folder, os.O_RDONLY | SPECIAL_UNTOUCHED)
    except OSError:  # Windows opens no folders
        return None
    try:
        if try_lock(descriptor):
            return descriptor
    except OSError:
        os.close(descriptor)
        return None
    os.close(descriptor)
    return _HELD


def _unlock(lock: int | None) -> None:
    if lock is not None and lock != _HELD:
        os.close(lock)


def _files(folder: Path) -> Iterator[Path]:
    """What is in the folder and in those in it, but no folders, except empty ones and links."""
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.is_symlink() and any(inner.iterdir()):
            yield from _files(inner)
        else:
            yield inner


def _is_of(file: Path, folder: Path, kind: FolderKind) -> bool:
    if file.is_symlink() or not file.is_file():
        return False
    name = file.relative_to(folder).as_posix()
    fitting = (each for pattern, each in kind.files.items() if fnmatchcase(name, pattern))
    return any(each.holds(file) for each in fitting)


def _remove(folder: Path, kind: FolderKind) -> None:
    """Remove a folder that this module made; keep what is no file of the kind by its name."""
    with suppress(OSError):
        for file in list(_files(folder)):
            name = file.relative_to(folder).as_posix()
            if any(fnmatchcase(name, pattern) for pattern in kind.files):
                file.unlink()
        inner = {(folder / pattern).parent for pattern in kind.files}
        for each in sorted(inner, key=lambda path: len(path.parts), reverse=True):
            if each.is_dir():
                each.rmdir()


def _clear_litter(target: Path, kind: FolderKind) -> None:
    """Remove the folders that killed processes left beside the target.

    Where there are no locks, these are those that nothing was written to for an hour.
    """
    begins = beside(target, "").name
    for each in target.parent.glob(f"{escape(begins)}????????.partial"):
        with suppress(OSError):
            lock = _locked(each) if each.is_dir() and not each.is_symlink() else _HELD
            if lock != _HELD and (lock is not None or _is_old(each)):
                _remove(each, kind)
            _unlock(lock)


def _is_old(folder: Path) -> bool:
    newest = max(path.stat().st_mtime for path in [folder, *_files(folder)])
    return time.time() - newest > _LITTER
