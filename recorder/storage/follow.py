"""Follow a recording while it is written, yielding new events.

The file is reopened when another file replaces it at the path, which happens when a recording is
closed or resumed.
"""

import os
import time
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.recorder.errors import DamagedError, RecordingError
from flexrec.recorder.events import Event
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import Ints
from flexrec.recorder.storage.live_store import LiveStore
from flexrec.recorder.storage.open_store import open_store, stored_facts
from flexrec.recorder.storage.series import events_of
from flexrec.recorder.storage.store import Store

_PATIENCE = 30.0  # seconds for which an unreadable file is retried


@dataclass(frozen=True, slots=True)
class Superseded:
    """The run was resumed: the last `count` events that were yielded are superseded."""

    count: int


def follow(
    path: Path, *, poll_seconds: float = 0.5, timeout: float | None = None
) -> Iterator[Event | Superseded]:
    """Yield events as `Recording.follow` does."""
    last_news = time.monotonic()
    with Follower(path) as follower:
        while not follower.ended:
            for event in follower.poll():
                last_news = time.monotonic()
                yield event
            if timeout is not None and time.monotonic() - last_news > timeout:
                return
            if not follower.ended:
                time.sleep(poll_seconds)


class Follower:
    """Follows one path; `ended` is set when the recording is closed and all events were yielded.

    `facts` are the recording's, as they were when events were last read.

    >>> with Follower(Path("run.h5")) as follower:
    ...     len(list(follower.poll()))
    22
    """

    def __init__(self, path: Path) -> None:
        self.path, self.ended = Path(os.path.realpath(path)), False
        self.facts: dict[str, Any] | None = None
        self._changed: str | None = None  # their text, if they changed since the file was made
        self._store: Store | None = None
        self._read: LiveStore | None = None  # the live file, up to where it was read
        self._identity: tuple[int, int] | None = None
        self._created: float | None = None  # creation time of the recording whose events were given
        self._given = array("q")  # the positions of yielded events that are not superseded
        self._next = 0  # the position of the next event
        self._failing_since: float | None = None
        self._closed = False

    def poll(self) -> Iterator[Event | Superseded]:
        """Yield new events in order; none while the file is missing or cannot be read.

        Raises:
            RecordingError: the file could not be read for half a minute, or `close` was called.
        """
        self._check_open()
        if self.ended:
            return
        try:
            yield from self._news()
            self._failing_since = None
        except RecordingError as error:
            self._check_open()
            self._forget()
            now = time.monotonic()
            self._failing_since = self._failing_since or now
            if now - self._failing_since > _PATIENCE:
                raise RecordingError(f"{self.path} can no longer be followed: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._closed = True
        self._forget()

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RecordingError(f"cannot follow {self.path}: this Follower is closed")

    def _news(self) -> Iterator[Event | Superseded]:
        read, self._read = self._read, None  # until all new events were taken
        tail = None
        if read is not None and self._identity == _identity(self.path):
            tail = read.tail()
        if tail is None or tail.resumes:
            yield from self._reopen()
            return
        yield from self._give(tail, 0, self._next + tail.effective())
        self._read, self._next = tail, self._next + tail.count
        if tail.schema.texts.get(fmt.FACTS) != self._changed:
            self._take_facts(tail)

    def _reopen(self) -> Iterator[Event | Superseded]:
        """Reopen the file; yield a `Superseded` if needed, and the events not yielded yet."""
        self._forget()
        identity = _identity(self.path)
        if identity is None:
            raise RecordingError(f"{self.path} does not exist")
        self._store, closed = open_store(self.path)
        self._identity = identity
        self._take_facts(self._store)
        left = self._store.effective()
        given = np.frombuffer(self._given, np.int64)
        is_same = self._store.created == self._created  # else another recording replaced it
        common = min(len(given), len(left)) if is_same else 0
        differing = np.flatnonzero(given[:common] != left[:common])
        same = int(differing[0]) if len(differing) else common
        gone = len(given) - same
        del given, differing  # they reference the array's buffer, which could not grow
        if gone:
            del self._given[same:]
            yield Superseded(gone)
        self._created = self._store.created
        if same < len(left):
            yield from self._give(self._store, int(left[same]), left[same:])
        if isinstance(self._store, LiveStore):
            self._read, self._next = self._store, self._store.count
        else:
            self.ended = closed
            self._forget()

    def _take_facts(self, store: Store) -> None:
        self._changed = store.schema.texts.get(fmt.FACTS)
        self.facts = None  # not those of a file that was replaced
        with suppress(DamagedError):  # what is drawn needs no facts
            self.facts = stored_facts(store, self.path)

    def _give(self, store: Store, first: int, positions: Ints) -> Iterator[Event]:
        for event, position in zip(events_of(store, first), positions.tolist(), strict=True):
            self._given.append(position)
            yield event

    def _forget(self) -> None:
        store, self._store, self._read = self._store, None, None
        if store is not None:
            with suppress(OSError, RuntimeError):
                store.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
