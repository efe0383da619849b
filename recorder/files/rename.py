"""Rename and remove files atomically, on every system. What may be replaced is not decided here.

Windows neither renames nor removes a file that is open, replaces no open file, and cannot sync a
folder.
"""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from flexrec.recorder.errors import warn
from flexrec.recorder.files.descriptors import open_binary, sync

RENAMES_OPEN_FILES = sys.platform != "win32"
_NO_FOLDER_SYNC = {errno.EACCES, errno.EINVAL, errno.ENOTSUP}  # a folder that cannot be synced


def replace(made: Path, path: Path) -> None:
    """Rename a file to a path, replacing the file there."""
    os.replace(made, path)


def move(made: Path, path: Path) -> None:
    """Rename a file to a path where there is none: rename(2) would replace one created meanwhile.

    Raises:
        FileExistsError: there is a file; on a file system without hard links it is replaced.
    """
    try:
        os.link(made, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(made, path)
    else:
        with suppress(OSError):  # the old name stays if the folder forbids removing
            made.unlink()


def sync_file(path: Path) -> None:
    """Write a file's data to the disk."""
    # Windows syncs only what is open for writing.
    _sync(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)


def sync_name(path: Path, folder: Path | None = None) -> None:
    """Write the name of a file that was renamed to this path to the disk, if the system can.

    If that fails, a warning says so; the file is there.

    Args:
        path: the file.
        folder: the folder to sync instead of the file's; it will be moved to the path.
    """
    if sys.platform == "win32":
        return
    try:
        _sync(folder or path.parent, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            warn(
                f"{path} is written, but its folder could not be synced, so a loss of power may "
                f"undo that: {error.strerror}"
            )


def _sync(path: Path, flags: int) -> None:
    descriptor = open_binary(path, flags)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def remove_and_close(path: Path, descriptor: int) -> None:
    """Remove a file that is locked through a descriptor, and close that.

    The name is gone before the lock is, so that nobody locks a file that has no name. Windows
    needs the other order: there a file that another process has opened meanwhile stays.

    Raises:
        OSError: it cannot be removed; the descriptor is closed.
    """
    if sys.platform == "win32":
        os.close(descriptor)
        path.unlink(missing_ok=True)
    else:
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
