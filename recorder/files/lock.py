"""Lock a recording's path with a file beside it, so that it has only one recorder.

HDF5's own lock does not suffice, because a writer releases it when it enters SWMR mode. The lock
is an flock on `.<name>.lock`, so it ends with its owner's process; the file's text only names the
owner. Anything else with that name, such as a link to another file, is neither locked nor written.
"""

import builtins
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import RecordingError
from flexrec.recorder.files.atomic_write import beside, what
from flexrec.recorder.files.descriptors import SPECIAL_UNTOUCHED, open_binary
from flexrec.recorder.files.flock import try_lock
from flexrec.recorder.files.rename import remove_and_close

_FLAGS = os.O_RDWR | os.O_CREAT | SPECIAL_UNTOUCHED
_BEGINS = '{"pid": '  # the start of an owner's text
_MOST = 4096  # bytes: an owner's text is shorter
_SILENT = 3600.0  # seconds after which an owner on another host is taken for dead
_PAUSE = 0.01  # seconds between tries


def lock_file(path: Path) -> Path:
    """The path of a recording's lock file: hidden, beside the recording."""
    return beside(path, "lock")


def why_not(path: Path, error: OSError) -> str:
    """Why a lock file could not be created, in terms that do not mention lock files."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"there is no folder {path.parent}"
    return f"{error.strerror} (in the folder {path.parent})"


class PathLock:
    """An exclusive lock on a recording, held until `release` or the end of this process.

    On a file system without locks, the lock is held as long as the owner's process is alive if it
    runs on this host; on another host, until the lock file is removed by hand.

    Args:
        path: the file to lock.
        wait: how many seconds to wait for another owner to release it.

    Raises:
        RecordingError: another recorder has the lock, and the message names its process and host;
            or the file with the lock file's name is not a lock file.
        OSError: the lock file cannot be created.
    """

    def __init__(self, path: Path, *, wait: float = 0.0) -> None:
        self._file = lock_file(path)
        until = time.monotonic() + wait
        while True:
            self._descriptor = _opened(self._file)
            try:
                if not _locked(self._descriptor):
                    if time.monotonic() >= until:
                        raise RecordingError(_refusal(path, _owner(self._descriptor)))
                    time.sleep(_PAUSE)
                elif _is_at(self._descriptor, self._file):  # else its last owner removed it
                    _refuse_others(self._descriptor, self._file)
                    break
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)
        try:
            self._sign()
        except BaseException:
            self.release()
            raise

    def _sign(self) -> None:
        me = {"pid": os.getpid(), "started": _started(os.getpid()), "host": socket.gethostname()}
        try:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, json.dumps(me).encode())
        except OSError:  # a full disk: the lock holds, but does not name its owner
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)

    def release(self) -> None:
        """Release the lock and remove the lock file; a second call does nothing."""
        try:
            is_there = self._descriptor >= 0 and _is_at(self._descriptor, self._file)
        except OSError:
            is_there = False
        if is_there:
            descriptor, self._descriptor = self._descriptor, -1
            with suppress(OSError):  # if the folder forbids removing, it stays, unlocked
                remove_and_close(self._file, descriptor)
        else:
            self.forget()

    def forget(self) -> None:
        """In a forked child: close the child's copy; the parent's lock is kept."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@contextmanager
def locked(path: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Context manager: hold a `PathLock`; arguments and errors are those of it."""
    lock = PathLock(path, wait=wait)
    try:
        yield
    finally:
        lock.release()


def seems_held(path: Path) -> bool:
    """Whether a recorder seems to be recording to the path.

    The lock is not asked for, since this could make a recorder fail that starts just now. An owner
    on this host is looked up among its processes; one on another host counts as alive if the
    recording has changed within the last hour.
    """
    try:
        descriptor = open_binary(lock_file(path), os.O_RDONLY | SPECIAL_UNTOUCHED)
    except OSError:
        return False
    try:
        _refuse_special(os.fstat(descriptor), path)
        owner = _owner(descriptor)
        if owner.get("host") == socket.gethostname() and owner.get("started") is not None:
            return _may_live(owner, descriptor)
        return bool(owner) and time.time() - path.stat().st_mtime < _SILENT
    except (RecordingError, OSError):
        return False
    finally:
        os.close(descriptor)


def _opened(file: Path) -> int:
    try:
        descriptor = open_binary(file, _FLAGS)
    except OSError:
        with suppress(FileNotFoundError):
            _refuse_special(file.lstat(), file)
        raise
    try:
        _refuse_special(os.fstat(descriptor), file)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_special(status: os.stat_result, file: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RecordingError(_not_ours(file, what(status.st_mode))) from None
    if status.st_nlink > 1:
        raise RecordingError(_not_ours(file, "a file that has another name too")) from None


def _refuse_others(descriptor: int, file: Path) -> None:
    """Refuse a file that no PathLock wrote: a large one, or one with another text.

    After a loss of power, a PathLock's own file may be empty or have arbitrary contents.
    """
    content = _content(descriptor)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = ""
    is_torn = not all(char.isprintable() or char.isspace() for char in text)
    is_ours = is_torn or text.startswith(_BEGINS) or _BEGINS.startswith(text)
    if len(content) > _MOST or not is_ours:
        raise RecordingError(_not_ours(file, "a file with something else in it"))


def _content(descriptor: int) -> bytes:
    """The file's text; of a file that is too large, one byte too many."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, _MOST + 1)


def _not_ours(file: Path, kind: str) -> str:
    return (
        f"{file} is {kind}, where flexrec's lock file is to be: it is left as it is; move it away, "
        "or choose another path"
    )


def _locked(descriptor: int) -> bool:
    try:
        return try_lock(descriptor)
    except OSError:  # a file system without locks
        return not _may_live(_owner(descriptor), descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except (FileNotFoundError, NotADirectoryError):  # the file or its folder is gone
        return False


def _owner(descriptor: int) -> dict[str, Any]:
    try:
        owner = json.loads(_content(descriptor))
    except ValueError:  # not written yet, or never
        return {}
    return owner if isinstance(owner, dict) else {}


def _may_live(owner: dict[str, Any], descriptor: int) -> bool:
    """Whether the owner that a lock file names may still have it; `descriptor` is of that file."""
    if not owner:
        return False
    if owner.get("host") != socket.gethostname():
        return True
    pid, started = owner.get("pid"), owner.get("started")
    if started is None:
        return _is_running(pid)
    return started == _started(pid) and _has_open(pid, descriptor)


def _has_open(pid: object, descriptor: int) -> bool:
    """Whether a process has the file of a descriptor open, besides that descriptor.

    A process that has become another program with exec(3) has its number and start time, and has
    it open no more. True if the system does not say.
    """
    folder, mine = Path(f"/proc/{pid}/fd"), Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    try:
        name, every = mine.readlink().name, list(folder.iterdir())
    except OSError:  # another user's
        return True
    return any(_leads_to(each, name, descriptor) for each in every if each != mine)


def _leads_to(link: Path, name: str, descriptor: int) -> bool:
    """Whether a link in /proc leads to the descriptor's file, which has this name."""
    try:  # asking for any other file might wait for a server
        return link.readlink().name == name and _is_same(descriptor, link)
    except OSError:  # closed meanwhile
        return False


def _is_same(descriptor: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(descriptor), path.stat())


def _started(pid: object) -> str | None:
    """The start time of a process in clock ticks; None if there is no such process, or no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _is_running(pid: object) -> bool:
    """Whether there is a process with this number; on Windows, which has no such call, True."""
    if sys.platform == "win32":
        return True
    if not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def _refusal(path: Path, owner: dict[str, Any]) -> str:
    if (owner.get("pid"), owner.get("host")) == (os.getpid(), socket.gethostname()):
        return f"{path} is being recorded by another Recorder of this process; {_what_to_do()}"
    who = f"process {owner['pid']} on {owner['host']}" if "host" in owner else "another process"
    return (
        f"{path} is being recorded by {who}; wait for its end, or choose another path; if that "
        f"process is gone, remove {lock_file(path)}"
    )


def _what_to_do() -> str:
    if hasattr(builtins, "__IPYTHON__"):
        return (
            "run rec.close() before the cell that makes it is run again, or make it in "
            "`with Recorder(…) as rec:`; where no name for it is left, run the cell once more, or "
            "choose another path"
        )
    return "call its close() first, or choose another path"
