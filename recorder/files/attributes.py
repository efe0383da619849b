"""Give a new file the owner, permissions and extended attributes of the file it replaces."""

import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from flexrec.recorder.errors import listed, warn

_ACCESS_LIST = "system.posix_acl_access"
_SYSTEMS = ("security.", "trusted.")  # given by the system, as to any new file


def take_over(old: Path, made: Path) -> list[str]:
    """Copy owner, group, attributes and mode from the old file, as far as allowed.

    If the group or the access list cannot be copied, the group gets the permissions of others.
    Nothing is copied on Windows, where files have their permissions from the folder.

    Returns:
        what could not be copied, such as "group".
    """
    if sys.platform == "win32":
        return []
    status = old.stat()
    for user in (status.st_uid, -1):
        with suppress(OSError):
            os.chown(made, user, status.st_gid)
            break
    lost = _copy_attributes(old, made)
    here, mode = made.stat(), stat.S_IMODE(status.st_mode)
    lost += ["group"] * (here.st_gid != status.st_gid) + ["owner"] * (here.st_uid != status.st_uid)
    if "group" in lost or "access list" in lost:
        mode &= ~0o070 | (mode & 0o007) << 3
    with suppress(OSError):
        made.chmod(mode)
    return sorted(lost)


def tell_lost(path: Path, lost: Iterable[str]) -> None:
    """Warn if something of the file that was at a path could not be copied to the new one."""
    lost = list(lost)
    if lost:
        narrower = "; its group now has the permissions of everybody else"
        is_narrower = "group" in lost or "access list" in lost
        warn(f"{path} was replaced without its {listed(lost)}" + narrower * is_narrower)


def _copy_attributes(old: Path, made: Path) -> list[str]:
    """Copy extended attributes; return what could not be copied, without the system's own."""
    if not hasattr(os, "listxattr"):
        return []
    there, here = _attributes(old), _attributes(made)
    for name in {name for name, _ in there.items() ^ here.items()}:
        with suppress(OSError):
            if name in there:
                os.setxattr(made, name, there[name])
            elif name == _ACCESS_LIST:  # the folder's default, which the old file lacked
                os.removexattr(made, name)
    here = _attributes(made)
    lost = [name for name in there if not name.startswith(_SYSTEMS) and name != _ACCESS_LIST]
    lost = [name for name in lost if here.get(name) != there[name]]
    return lost + ["access list"] * (here.get(_ACCESS_LIST) != there.get(_ACCESS_LIST))


def _attributes(path: Path) -> dict[str, bytes]:
    found = dict[str, bytes]()
    with suppress(OSError):
        for name in os.listxattr(path):
            with suppress(OSError):
                found[name] = os.getxattr(path, name)
    return found
