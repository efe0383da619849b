"""One recorder for a path: a lock in a file beside the recording. Nothing here knows HDF5.

HDF5's own lock will not do: a writer gives it up when it enters SWMR. The lock is flock's on
`.<name>.lock`, so it ends with its owner, however that ends; the file's text only names the owner.
"""

import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import RecordingError

__all__ = ["PathLock", "lock_file"]

_HELD = {errno.EWOULDBLOCK, errno.EACCES}  # the latter on SMB; any other error: no lock is given


def lock_file(path: Path) -> Path:
    """Where the lock of a recording is: beside it, hidden."""
    return path.with_name(f".{path.name}.lock")


class PathLock:
    """The right to write a recording, until `release` or the end of this process.

    Where the file system gives no locks, the owner's pid decides, on its own host; on another
    host its word is taken until the lock file is removed by hand.

    Raises:
        RecordingError: another recorder has it; the message names its process and host.
        OSError: the lock file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._file = lock_file(path)
        while True:
            self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if not _locked(self._descriptor):
                    raise RecordingError(_refusal(path, _owner(self._descriptor)))
                if _is_at(self._descriptor, self._file):  # else its last owner has removed it
                    break
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)
        me = {"pid": os.getpid(), "started": _started(os.getpid()), "host": socket.gethostname()}
        try:
            os.truncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(me).encode(), 0)
        except OSError:  # a full disk: the lock holds, only its owner has no name
            os.truncate(self._descriptor, 0)

    def release(self) -> None:
        """Give it up, and remove the lock file; a second call does nothing."""
        if self._descriptor >= 0:
            if _is_at(self._descriptor, self._file):
                self._file.unlink(missing_ok=True)
            self.forget()

    def forget(self) -> None:
        """In a forked child: let go of the copy; the parent's lock stays."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD and not _may_live(_owner(descriptor))
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (FileNotFoundError, NotADirectoryError):  # it, or its folder, is gone
        return False


def _owner(descriptor: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:  # not written yet, or never
        return {}
    return owner if isinstance(owner, dict) else {}


def _may_live(owner: dict[str, Any]) -> bool:
    if not owner:
        return False
    return owner.get("host") != socket.gethostname() or (
        owner.get("started") is not None and owner["started"] == _started(owner.get("pid"))
    )


def _started(pid: object) -> str | None:
    """When a process began, in the kernel's ticks; None where there is none of that number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _refusal(path: Path, owner: dict[str, Any]) -> str:
    who = f"process {owner['pid']} on {owner['host']}" if "host" in owner else "another process"
    return (
        f"{path} is being recorded by {who}; wait for its end, or choose another path; if that "
        f"process is gone, remove {lock_file(path)}"
    )
