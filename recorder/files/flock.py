"""Lock an open file: flock(2), or the locks of Windows.

Only the standard library is used. The filelock package opens its file itself; here files are
opened and examined first, because another user may have put a link or a pipe in their place.
"""

import errno
import os
import sys

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_HELD = {errno.EWOULDBLOCK, errno.EACCES}  # EACCES: SMB, and Windows
_BEYOND = 1 << 30  # Windows hides a locked byte from other processes: lock one that is not used


def try_lock(descriptor: int) -> bool:
    """Lock a file until its descriptor is closed; return False if another process has the lock.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _BEYOND, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True
