"""Names: of files, which no other run has or every system takes; of keys that are no metrics."""

import re
import secrets
import time
import zlib

_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]|^\.+|[. ]+$')
_LONGEST = 150  # bytes of a file's name, which is numbered and has an ending

SYSTEM, CONSOLE = "system/", "console/"
"""How keys begin that are not of the training: of the machine, and of what the process prints."""


def new_name() -> str:
    """The time and a few random digits, such as `20260131-235959-1a2b3c`."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def file_name(name: object) -> str:
    """A name that a file or folder may have on every system; a long one ends in its checksum.

    >>> file_name("train/first?")
    'train_first_'
    """
    safe = _UNSAFE.sub("_", f"{name}")
    data = safe.encode("utf-8", "replace")
    if len(data) > _LONGEST:
        start = data[:_LONGEST].decode("utf-8", "ignore")
        return f"{start}-{zlib.crc32(f'{name}'.encode('utf-8', 'replace')):08x}"
    return data.decode()


def is_around(key: str) -> bool:
    """Whether a key is of what is around the training, which is no metric and makes no steps.

    >>> is_around("system/cpu_percent"), is_around("train_loss")
    (True, False)
    """
    return key.startswith((SYSTEM, CONSOLE))


ON_ACCELERATOR = 1 << 52
"""Fingerprints of tensors on an accelerator are from here to twice this; those of the CPU below."""


def is_fingerprint(key: str) -> bool:
    """Whether a key's numbers are fingerprints: two are equal, or unequal by no amount.

    >>> is_fingerprint("0/outputs/fingerprint"), is_fingerprint("train_loss")
    (True, False)
    """
    return key.endswith("/fingerprint")
