"""Copies of recordings at URLs, such as s3://bucket/run.h5, in a temporary folder.

A recording is read at many places, so the whole file is copied first; fsspec does that. A copy is
removed when it is no longer needed, or else when the process ends.
"""

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from glob import has_magic
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard
from urllib.parse import unquote

from flexrec.recorder.errors import (
    FlexrecError,
    MissingDependency,
    OutputError,
    RecordingError,
    call,
    call_no_more,
    warn,
)

MOST = 1 << 34
"""The most bytes of all copies together."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two characters at least: c:// is a drive
_SECRET = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(
    r"(https?://[^?\s'\"]*\?)[^\s'\"]+"
)  # may be a signature; elsewhere ? is a wildcard
_RECORDINGS = (".h5", ".hdf5")
_COPIED = (*_RECORDINGS, *(f"{ending}.tags" for ending in _RECORDINGS))

_numbers = count()
_folders: dict[int, Path] = {}  # this process's temporary folder, by its number: a fork has none


def is_url(place: str | os.PathLike[str]) -> TypeGuard[str]:
    """Whether a place is a URL such as `s3://bucket/run.h5`, and no path."""
    return isinstance(place, str) and _URL.match(place) is not None


def check_path(place: str | os.PathLike[str]) -> None:
    """Refuse a URL where a file is written: as a path it would name a folder such as `s3:`.

    Raises:
        OutputError: the place is a URL.
    """
    if is_url(place):
        raise OutputError(f"cannot write {without_secret(place)}: it is a URL; give a path")


def without_secret(url: str) -> str:
    """The URL, or a text with URLs, to show: without a user's name, password and signature."""
    return _QUERY.sub(r"\1…", _SECRET.sub("…@", url))


def is_copy(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a copy, or of a folder of copies."""
    folder = _folders.get(os.getpid())
    return folder is not None and folder in Path(os.path.realpath(path)).parents


def copied(url: str) -> Path:
    """Copy a recording, or all in a folder or that fit a pattern; return the path of the copy.

    The copy of a folder, or of what fits a pattern, is a folder with the same names in it. A file
    that is listed but not there, or may not be read, is left out of it, with a warning.

    Raises:
        MissingDependency: fsspec, or what it needs for this kind of URL, is not installed.
        RecordingError: there is no recording, it cannot be read, or there is no room for it.
    """
    shown = without_secret(url)
    with _telling(shown):
        files, is_one = _found(url)
        if not files:
            raise RecordingError(f"{shown}: there is no recording, {' or '.join(_RECORDINGS)}")
        room = _room()
        if sum(size for _, size in files.values()) > room:
            raise _too_large(shown, room)
        made = _folder() / f"{next(_numbers):06}"  # in the order of the places
        made.mkdir()
        try:
            left = [room]
            for name, (get, _) in files.items():
                target = made / name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    get(str(target), callback=_limit(left, _too_large(shown, room)))
                except (FileNotFoundError, PermissionError):
                    if is_one:
                        raise
                    target.unlink(missing_ok=True)
                    warn(f"{name} in {shown} cannot be read, and is left out")
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    copy = made / next(iter(files)) if is_one else made
    call(str(copy), shown if is_one else _folder_of(shown).rstrip("/"))
    return copy


def remove(copy: Path) -> None:
    """Remove a copy that this process made."""
    folder = _folders.get(os.getpid())
    path = Path(os.path.realpath(copy))
    if folder is not None and folder in path.parents:
        made = folder / path.relative_to(folder).parts[0]
        shutil.rmtree(made, ignore_errors=True)
        call_no_more(str(made))


def _found(url: str) -> tuple[dict[str, tuple[Any, int]], bool]:
    """For each file its name in the copy, what gets it and its size; and whether it is the only."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingDependency.of("URLs such as s3://bucket/run.h5", "fsspec") from error
    fs, root = url_to_fs(url)
    # Of HTTP, what follows the question mark is no wildcard but a query.
    is_web = url.startswith(("http://", "https://"))
    path = root.partition("?")[0] if is_web else root
    is_pattern = has_magic(path)
    if not is_pattern and (path.endswith(_RECORDINGS) or not _is_folder(fs, root, is_web=is_web)):
        get = partial(fs.get_file, root), fs.info(root).get("size") or 0
        return {PurePosixPath(unquote(path)).name or "run.h5": get}, True
    listed = fs.glob(root, detail=True) if is_pattern else fs.find(root, detail=True)
    files = {}
    for path, told in listed.items():
        name = _inside(path, root)
        if name and path.endswith(_COPIED) and told.get("type", "file") == "file":
            files[name] = partial(fs.get_file, path), told.get("size") or 0
    return files, False


def _is_folder(fs: Any, root: str, *, is_web: bool) -> bool:
    """Whether there is a folder, or of HTTP a page, which may list files.

    `fs.isdir` would search the whole contents of what is at an HTTP URL for links.
    """
    return bool(fs.info(root).get("mimetype") == "text/html" if is_web else fs.isdir(root))


def _inside(path: str, root: str) -> str:
    """The path below the folder, or below that of a pattern's first wildcard; "" for none."""
    name = unquote(path.removeprefix(_folder_of(root))).lstrip("/")
    parts = PurePosixPath(name).parts
    return "" if ".." in parts or "\0" in name or "\\" in name else "/".join(parts)


def _folder_of(root: str) -> str:
    """The folder; of a pattern, that of the first wildcard."""
    whole = re.split(r"[*?\[]", root, maxsplit=1)[0]
    return whole.rpartition("/")[0] if whole != root else root.rstrip("/")


def _folder() -> Path:
    """The temporary folder of this process."""
    pid = os.getpid()
    if pid not in _folders:
        folder = _folders[pid] = Path(os.path.realpath(tempfile.mkdtemp(prefix="flexrec-")))
        atexit.register(_clean, folder, pid)
    return _folders[pid]


def _clean(folder: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def _room() -> int:
    """How many bytes more may be copied; half of the disk's free room stays free."""
    folder = _folder()
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return max(0, min(MOST - there, shutil.disk_usage(folder).free // 2))


def _too_large(shown: str, room: int) -> RecordingError:
    return RecordingError(
        f"{shown}: recordings at URLs are copied to a temporary folder, {_folder().parent}, and "
        f"only {room:,} more bytes may be copied; copy them yourself, to read them from there"
    )


def _limit(left: list[int], error: RecordingError) -> Any:
    """What counts the bytes that are copied, and ends that with an error at the limit."""
    from fsspec.callbacks import Callback

    class Limit(Callback):  # type: ignore[misc]  # fsspec may be missing
        def relative_update(self, inc: int = 1) -> None:
            left[0] -= inc
            if left[0] < 0:
                raise error

    return Limit()


@contextmanager
def _telling(shown: str) -> Iterator[None]:
    """Say which URL cannot be read; every file system has errors of its own."""
    try:
        yield
    except FlexrecError:
        raise
    except FileNotFoundError as error:
        why = error.__cause__  # of HTTP, that no server answers
        if why is None or isinstance(why, FileNotFoundError):
            raise RecordingError(f"{shown} does not exist") from error
        raise RecordingError(f"{shown} cannot be read: {without_secret(str(why))}") from error
    except ImportError as error:  # such as s3fs
        raise MissingDependency(f"{shown} cannot be read: {error}") from error
    except Exception as error:
        what = without_secret(str(error)) or type(error).__name__
        raise RecordingError(f"{shown} cannot be read: {what}") from error
