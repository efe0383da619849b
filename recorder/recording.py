"""Recording: what users read. Its values by key are read in storage/columns.py."""

import math
import os
from collections.abc import Iterable, Iterator
from copy import copy
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from flexrec.recorder.errors import MissingDependency, RecordingError, counted, listed
from flexrec.recorder.events import Event
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.columns import ColumnReader
from flexrec.recorder.storage.open_store import open_store, stored_facts, stored_json
from flexrec.recorder.storage.series import Marks, Row, Series, events_of, marks_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from flexrec.recorder.storage.follow import Superseded


class ResumePoint(NamedTuple):
    """A resume: where it stands among the events, the first of them that it supersedes, and the
    step that is recorded next."""

    position: int
    first: int
    step: int


class Recording:
    """Read a recording, whether its run ended, goes on, or was killed.

    >>> with Recording("run.h5") as run:
    ...     print(run)
    ...     print(run["train_loss"].value[:3], run.config)
    <Recording run.h5: 2 keys, 22 events, complete>
    [1.         0.5        0.33333333] {'lr': 0.1}

    What a resume superseded is not shown: it stays in the file, and is counted in `superseded`.

    Attributes:
        path: the file.
        complete: whether the run ended: `Recorder.close` was called, or `flexrec repair` has closed
            what a kill left. Else it goes on, or was killed.
        config, facts: as they were recorded; None where they were not.
        columns: the values of the keys, a bounded number at a time: what replay reads. Internal.

    Raises:
        NotARecordingError: the file is not HDF5, or not flexrec's.
        VersionError: a newer flexrec wrote it.
        DamagedError: its data is not as it was written; reading values may raise it, too.
        RecordingError: it does not exist, or cannot be read; or it was closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._store, self.complete = open_store(self.path)
        self.config: Any = stored_json(self._store, self.path, fmt.CONFIG)
        self.facts = stored_facts(self._store, self.path)
        self.columns = ColumnReader(self.path, self._store)

    def __repr__(self) -> str:
        keys, state = counted(len(self), "key"), "complete" if self.complete else "not complete"
        if self._store.file.is_closed:
            return f"<Recording {self.path}: {keys}, closed here>"
        return f"<Recording {self.path}: {keys}, {counted(self.event_count, 'event')}, {state}>"

    @cached_property
    def marks(self) -> Marks:
        """The `log` and `reset` calls, in order."""
        found = [self._store.marks(*block) for block in self._store.blocks()]
        return marks_of(self._store, found)

    def keys(self) -> list[str]:
        """Every key, in the order of its first appearance."""
        return list(self.columns.of)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns.of)

    def __contains__(self, key: object) -> bool:
        return key in self.columns.of

    def __len__(self) -> int:
        return len(self.columns.of)

    def __getitem__(self, key: str) -> Series:
        return self.series([key])[key]

    @property
    def event_count(self) -> int:
        """How many events there are: adds, logs and resets that were not superseded."""
        return self._store.effective_count()

    @property
    def superseded(self) -> int:
        """How many events were taken back when the run was resumed at an earlier step."""
        return sum(view.effective_count() for view in self._store.views()[1:])

    @property
    def resumes(self) -> int:
        """How often the run was resumed; twice with nothing recorded in between is once."""
        return self._store.resumes

    def taken_back(self) -> "Recording":
        """The same recording, of what resumes superseded alone; closing one closes both."""
        other = copy(self)
        other.__dict__.pop("marks", None)  # of what is shown here
        other._store = self._store.superseded()
        other.columns = ColumnReader(self.path, other._store)
        return other

    def resume_points(self) -> list[ResumePoint]:
        """Every resume in the order of the file, those taken back by a later one, too."""
        store = self._store.recorded()
        found = [store.marks(*block) for block in store.blocks()]
        return [
            ResumePoint(position, int(mark["x"]), int(mark["step"]))
            for where, marks in found
            for position, mark in zip(where.tolist(), marks, strict=True)
            if mark["code"] == fmt.RESUME
        ]

    @property
    def dropped(self) -> int:
        """How many events the recorder says that it could not write."""
        found = [self._store.marks(*block)[1] for block in self._store.blocks()]
        total = sum(float(marks["x"][marks["code"] == fmt.DROPPED].sum()) for marks in found)
        if not 0 <= total < math.inf:
            raise self._store.file.damaged(f"{total:g} events were dropped")
        return int(total)

    def counts(self, first: int = 0) -> dict[str, int]:
        """How many values each key has, from the event at position `first` on."""
        return self.columns.counts(first)

    def is_number(self, key: str) -> bool:
        """Whether every value of the key is a single number."""
        return self.columns.is_number(key)

    def kind(self, key: str) -> str:
        """What the key's values are, such as `number` or `(float32:2, int64:1)`."""
        return self.columns.kind(key)

    @property
    def state(self) -> str:
        """In one line, whether the run ended, and up to where the recording is whole."""
        resumed = f"resumed {self.resumes} times, " if self.resumes > 1 else "resumed once, "
        resumed += f"{counted(self.superseded, 'event')} superseded"
        if self.complete:
            said = (
                "closed, but for its last bytes (flexrec repair)"
                if self._store.file.unclosed
                else "closed"
            )
            return f"{said}; {resumed}" if self.resumes else said
        last = self._store.last_step
        where = "nothing was recorded" if last is None else f"it is whole up to step {last}"
        if self._store.cut:
            why = "was torn by a loss of power" if self._store.is_torn else "is not whole"
            where += f"; what follows, {counted(self._store.cut, 'event')}, {why} and left out"
        damaged = self._store.damaged_from(is_strict=False)
        if damaged is not None:
            where += f"; event {damaged} or one written with it is not as it was: flexrec verify"
        more = f"; {resumed}" if self.resumes else ""
        return f"the run has not ended, or was killed; {where}{more}"

    def series(self, keys: Iterable[str]) -> dict[str, Series]:
        """Several keys in one pass over the file: quicker than one by one."""
        return self.columns.series(keys)

    def rows(self, key: str) -> Iterator[Row]:
        """One key's values in order, a bounded number of them in memory at a time."""
        return self.columns.rows(key)

    def to_pandas(self, keys: Iterable[str] | None = None) -> "DataFrame":
        """Return numbers and texts as pandas' DataFrame, a row for each value.

        >>> frame = Recording("run.h5").to_pandas(["train_loss"])
        >>> frame.groupby("key", observed=True)["value"].count()["train_loss"]
        np.int64(10)

        Its columns are `key` (categorical), `step`, `time` (seconds since 1970) and `value`, the
        rows in the order of the keys, and within a key in that of the events.

        Args:
            keys: which; None: all whose values are numbers and texts.

        Raises:
            MissingDependency: pandas is not installed.
            RecordingError: a key that is asked for has arrays.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependency.of("to_pandas", "pandas") from error
        chosen = [key for key in self if self.columns.is_plain(key)] if keys is None else list(keys)
        odd = [f"{key} is {self.kind(key)}" for key in chosen if not self.columns.is_plain(key)]
        if odd:
            raise RecordingError(f"{self.path}: {listed(odd)}: not numbers and texts, as rows are")
        found = list(self.series(chosen).values())
        values = [np.asarray(series.value, object) for series in found]
        if all(map(self.is_number, chosen)):
            values = [series.value for series in found]
        lengths = [len(series) for series in found]
        empty = np.empty(0)
        return pd.DataFrame(
            {
                "key": pd.Categorical.from_codes(np.repeat(range(len(found)), lengths), chosen),
                "step": np.concatenate([empty.astype(int), *(series.step for series in found)]),
                "time": np.concatenate([empty, *(series.time for series in found)]),
                "value": np.concatenate([empty, *values]),
            }
        )

    def events(self) -> Iterator[Event]:
        """Every event in the recorded order."""
        return events_of(self._store)

    def follow(
        self, *, poll_seconds: float = 0.5, timeout: float | None = None
    ) -> "Iterator[Event | Superseded]":
        """Every event, now and as more are recorded, until the recording is closed.

        >>> kinds = [type(event).__name__ for event in Recording("run.h5").follow()]
        >>> kinds.count("Log")
        2

        The writer may be killed and resume. Where it resumes at an earlier step, a `Superseded`
        comes among the events: as many of those before it as it says no longer hold.

        Args:
            poll_seconds: how often the file is looked at.
            timeout: end, too, after so many seconds without news; None waits for good.

        Raises:
            RecordingError: the file can no longer be read.
        """
        self._store.file.check_open()
        from flexrec.recorder.storage.follow import follow

        return follow(self.path, poll_seconds=poll_seconds, timeout=timeout)

    def close(self) -> None:
        """Close the file: what would be read of it from then on is a RecordingError."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
