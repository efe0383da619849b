"""Tags and notes of a run, given after it: a small JSON file beside the recording.

    {"flexrec_tags": 1, "tags": {"good": "best so far", "seed": ""}}

It may come from anyone: what is no such file says nothing.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flexrec.recorder.errors import RecordingError, one_line
from flexrec.recorder.files.atomic_write import Kind, check_source, replacing, writing
from flexrec.recorder.files.descriptors import open_binary
from flexrec.recorder.files.lock import locked

ENDING = ".tags"
_MEMBER, _MOST = "flexrec_tags", 1 << 16  # the member that tells the kind; bytes of a file
_NO_TAGS = (ValueError, TypeError, KeyError, RecursionError)  # from JSON of another kind
_WAIT = 10.0  # seconds to wait for another process that changes the tags


def tags_of(path: str | os.PathLike[str]) -> dict[str, str]:
    """The tags of the recording at the path, each with its note, which may be empty."""
    try:
        return _tags(_read(_beside(path)))
    except (OSError, *_NO_TAGS):
        return {}


def tag(path: str | os.PathLike[str], name: str, note: str = "") -> dict[str, str]:
    """Tag the recording at the path, with a note, and return all its tags.

    An existing tag gets the new note.

    Raises:
        RecordingError: there is no recording at the path, or the tag's name is empty.
        OutputError: the file beside it cannot be written, or is no file of tags.
    """
    check_source(Path(path))
    from flexrec.recorder.storage.open_store import RECORDING  # imports h5py; a table needs none

    if not RECORDING.holds(Path(path)):
        raise RecordingError(f"{path} is not {RECORDING.name}; give the path of one")
    if not name.strip():
        raise RecordingError("a tag needs a name, such as good")
    with _changing(path) as tags:
        tags[name] = note
    return tags


def untag(path: str | os.PathLike[str], name: str) -> dict[str, str]:
    """Take a tag from the recording at the path, and return those that are left.

    Raises:
        RecordingError: the recording has no such tag.
        OutputError: as for `tag`.
    """
    with _changing(path) as tags:
        if name not in tags:
            there = ", ".join(tags) or "none"
            raise RecordingError(one_line(f"{path} has no tag {name!r}; its tags are {there}"))
        del tags[name]
    return tags


def _beside(path: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(path)}{ENDING}")


def _read(path: Path) -> bytes:
    descriptor = open_binary(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        return os.read(descriptor, _MOST)
    finally:
        os.close(descriptor)


def _tags(data: bytes) -> dict[str, str]:
    found = json.loads(data)
    if not isinstance(found, dict) or found.get(_MEMBER) != 1:
        raise ValueError("no tags")
    return {str(name): str(note) for name, note in dict(found["tags"]).items()}


def _holds_tags(path: Path) -> bool:
    try:
        return isinstance(_tags(_read(path)), dict)
    except _NO_TAGS:
        return False


_TAGS = Kind("a file of tags that flexrec wrote", _holds_tags)


@contextmanager
def _changing(path: str | os.PathLike[str]) -> Iterator[dict[str, str]]:
    """Context manager: the tags, which are written at its end; only one process has them."""
    beside = _beside(path)
    with writing(beside), locked(Path(os.path.realpath(beside)), wait=_WAIT):
        tags = tags_of(path)
        yield tags
        text = json.dumps({_MEMBER: 1, "tags": tags}, indent=1)
        if len(text) > _MOST:
            raise RecordingError(f"the tags of {path} would take more than {_MOST:,} bytes")
        with replacing(beside, _TAGS, overwrite=True, inputs=[path]) as partial:
            partial.write_text(text, encoding="utf-8")
