"""Find recordings in folders, by patterns and by name, without opening one."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from flexrec.recorder.errors import RecordingError, warn
from flexrec.recorder.files.remote import is_copy
from flexrec.replay.runs.tags import ENDING as TAGS

_ENDINGS = (".h5", ".hdf5")

Stamp = tuple[int, ...]
"""Size, times and number of a file, and size and time of its tags."""


@dataclass(frozen=True)
class Found:
    """A file that may be a recording.

    Attributes:
        path: the path, beginning as the place in which it was found.
        real: the absolute path.
        name: the path within that place, without the ending.
        inode: the file's number, which a file that replaces it has not.
        stamp: tells whether the file has changed.
    """

    path: str
    real: str
    name: str
    inode: int
    stamp: Stamp


def scan(places: Iterable[str | os.PathLike[str]]) -> list[Found]:
    """The files in the places, sorted by path.

    Args:
        places: folders, which are searched recursively; patterns such as `exp/*/run.h5` (`**`
            matches folders); and files. What is hidden in a folder, links to folders, and links
            to nowhere that are not named are left out.

    Raises:
        RecordingError: a place does not exist, or no file fits a pattern.
    """
    found: dict[str, Found] = {}
    files: list[str] = []
    for place in places:
        for path in _matches(os.fspath(place)):
            if os.path.isdir(path):
                found |= {one.real: one for one in _in_folder(path)}
            else:
                files.append(path)
    beside = os.path.commonpath([os.path.dirname(os.path.abspath(f)) for f in files] or ["/"])
    for path in files:
        folder, name = os.path.split(path)
        real = os.path.join(os.path.realpath(folder), name)
        inside = os.path.relpath(os.path.abspath(path), beside)
        root, ending = os.path.splitext(inside)
        short = root if ending in _ENDINGS else inside
        one = _found(path, real, short, _status(path), has_tags=True)
        found.setdefault(one.real, one)
    return sorted(found.values(), key=lambda one: one.path)


def homes(places: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The real folders that the places are, or that hold them: these name an index.

    There are none if a place is a copy, which will not be there again.
    """
    if any(map(is_copy, places)):
        return []
    every = {path for place in places for path in _matches(os.fspath(place))}
    folders = {path if os.path.isdir(path) else os.path.dirname(path) for path in every}
    return sorted(map(os.path.realpath, folders))


def _matches(place: str) -> list[str]:
    if os.path.lexists(place):
        return [place]
    if not glob.has_magic(place):
        raise RecordingError(f"{place} does not exist; give a folder, a pattern or a recording")
    found = sorted(filter(os.path.exists, glob.glob(place, recursive=True)))
    if not found:
        raise RecordingError(f"no file or folder fits {place!r}")
    return found


def _in_folder(root: str) -> Iterator[Found]:
    waiting, real = [root], os.path.realpath(root)
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as listed:
                entries = {entry.name: entry for entry in listed}
        except OSError as error:
            warn(f"{folder} cannot be searched: {error.strerror}")
            continue
        inside = folder[len(root) :].lstrip(os.sep)
        above = os.path.join(real, inside, ""), os.path.join(inside, "")
        refused: OSError | None = None
        for name, entry in entries.items():
            if name.startswith("."):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif name.endswith(_ENDINGS) and entry.is_file():
                    short = f"{above[1]}{name[: name.rindex('.')]}"
                    where = entry.path, f"{above[0]}{name}", short
                    yield _found(*where, entry.stat(), has_tags=f"{name}{TAGS}" in entries)
            except PermissionError as error:
                refused = error
            except OSError:
                continue  # it has just been removed, or is a link to itself
        if refused is not None:
            warn(f"the files in {folder} cannot be read: {refused.strerror}")


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        is_link = isinstance(error, FileNotFoundError) and os.path.islink(path)
        why = "it is a link to nowhere" if is_link else error.strerror
        raise RecordingError(f"{path} cannot be read: {why}") from error


def _found(path: str, real: str, name: str, status: os.stat_result, *, has_tags: bool) -> Found:
    of_tags = 0, 0
    if has_tags:
        with suppress(OSError):  # there are none, or they are a link to nowhere
            tags = os.stat(f"{path}{TAGS}")
            of_tags = tags.st_size, tags.st_mtime_ns
    # Programs can set the first time; the second is when anything of the file was last changed.
    times = status.st_mtime_ns, status.st_ctime_ns
    stamp = status.st_size, *times, status.st_ino, *of_tags
    return Found(path, real, name, status.st_ino, stamp)
