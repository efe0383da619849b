"""Give a new file the owner, permissions and extended attributes of the file it replaces."""

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

_ACCESS_LIST = "system.posix_acl_access"


def take_over(old: Path, made: Path) -> None:
    """Copy owner, group, attributes and mode from the old file, as far as allowed.

    If the group or the access list cannot be copied, the group gets the permissions of others.
    Nothing is copied on Windows, where files have their permissions from the folder.
    """
    if sys.platform == "win32":
        return
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
            elif name == _ACCESS_LIST:  # the folder's default, which the old file lacked
                os.removexattr(made, name)
    return there.get(_ACCESS_LIST) == _attributes(made).get(_ACCESS_LIST)


def _attributes(path: Path) -> dict[str, bytes]:
    found = dict[str, bytes]()
    with suppress(OSError):
        for name in os.listxattr(path):
            with suppress(OSError):
                found[name] = os.getxattr(path, name)
    return found
