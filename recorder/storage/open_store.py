"""`open_store`: open a recording in either layout for reading."""

import re
import time
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import DamagedError, NotARecordingError, RecordingError, VersionError
from flexrec.recorder.files.atomic_write import Kind
from flexrec.recorder.hdf5.file import UntrustedFile
from flexrec.recorder.hdf5.superblock import SIGNATURE
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.closed_store import ClosedStore
from flexrec.recorder.storage.live_store import LiveStore
from flexrec.recorder.storage.store import Store

_PAUSES, _FRESH = (0.005, 0.02, 0.05), 5.0  # seconds: between tries; age of a file being written
# The attribute that marks recordings, as HDF5 writes it near the start; damaged files have it too.
_OURS = re.compile(rb"%b\0.{0,24}%b" % (fmt.ATTR_FORMAT.encode(), fmt.MAGIC.encode()), re.DOTALL)
_HEAD = 1 << 16  # bytes


def open_store(path: Path) -> tuple[Store, bool]:
    """Open a recording; the flag says whether it was closed.

    Raises:
        NotARecordingError: the file is not HDF5, or was not written by flexrec.
        VersionError: a newer flexrec wrote it.
        DamagedError: its data is damaged.
        RecordingError: the file does not exist or cannot be read.
    """
    for pause in _PAUSES:
        try:
            return _open(path)
        except (NotARecordingError, VersionError):
            raise
        except RecordingError:  # perhaps a writer is changing it just now
            if time.time() - _modified(path) > _FRESH:
                raise
            time.sleep(pause)
    return _open(path)


def _modified(path: Path) -> float:
    """When a file was written last, in seconds since 1970; 0 if that cannot be told."""
    try:
        return path.stat().st_mtime
    except (OSError, ValueError):  # ValueError: a null character in the path
        return 0.0


def _open(path: Path) -> tuple[Store, bool]:
    file = UntrustedFile(path)
    try:
        if file.attribute(fmt.ATTR_FORMAT) != fmt.MAGIC.encode():
            raise NotARecordingError(f"{path} is an HDF5 file, but not a flexrec recording")
        version = file.attribute(fmt.ATTR_VERSION)
        if not isinstance(version, int):
            raise file.damaged(f"its version is {version!r:.40}")
        if version > fmt.VERSION:
            raise VersionError(
                f"{path} has format version {version}, this flexrec reads up to "
                f"{fmt.VERSION}; install a newer flexrec"
            )
        closed = file.attribute(fmt.ATTR_STATE) == fmt.CLOSED.encode()
        if closed and file.cut_short:
            raise file.damaged("it was closed, but its end is missing now")
        # If power fails while the file is closed, only HDF5's last bytes may be missing.
        file.only_checked = closed and file.unclosed
        return (ClosedStore(file) if closed else LiveStore(file)), closed
    except BaseException:
        file.close()
        raise


def _is_recording(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return head.startswith(SIGNATURE) and _OURS.search(head) is not None


RECORDING = Kind("a flexrec recording", _is_recording)
"""A recording of any version, whole or damaged."""


def stored_json(store: Store, path: Path, name: str) -> Any:
    """Parse the config or the facts of the recording.

    Raises:
        DamagedError: it is damaged.
    """
    text = store.text(name)
    try:
        return fmt.parsed(name, text)
    except ValueError as error:
        raise DamagedError.of(path, f"{name}: {error!s:.80}") from error


def stored_facts(store: Store, path: Path) -> dict[str, Any] | None:
    """The facts of the run; raises the same errors as `stored_json`."""
    facts: dict[str, Any] | None = stored_json(store, path, fmt.FACTS)
    return facts
