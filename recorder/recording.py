"""Recording, the class that reads a recording. storage/columns.py reads its values by key."""

import math
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from flexrec.recorder.errors import (
    DamagedError,
    MissingDependency,
    RecordingError,
    counted,
    listed,
    warn,
)
from flexrec.recorder.events import Event
from flexrec.recorder.files.remote import copied, is_url, remove
from flexrec.recorder.layers.models import models_of
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.columns import ColumnReader
from flexrec.recorder.storage.open_store import open_store, stored_facts, stored_json
from flexrec.recorder.storage.series import Marks, Row, Series, events_of, marks_of
from flexrec.recorder.storage.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

    from flexrec.recorder.storage.follow import Superseded


class ResumePoint(NamedTuple):
    """A resume of the run.

    Attributes:
        position: its position among the events.
        first: the position of the first event that it supersedes.
        step: the step that is recorded next.
    """

    position: int
    first: int
    step: int


class Recording:
    """Read a recording, whether its run has ended, is still running, or was killed.

    >>> with Recording("run.h5") as run:
    ...     print(run)
    ...     print(run["train_loss"].value[:3], run.config)
    <Recording run.h5: 2 keys, 22 events, complete>
    [1.         0.5        0.33333333] {'lr': 0.1}

    Events that a resume superseded stay in the file but are not read; `superseded` counts them.

    A URL such as `s3://bucket/run.h5` is copied to a temporary file, with fsspec, and the copy is
    removed when this object is closed.

    Attributes:
        path: the file; of a URL its copy.
        complete: whether the run has ended: `Recorder.close` was called, or `flexrec repair`
            closed the file of a killed run. False if the run is still running or was killed.
        config, facts: as they were recorded; None if they were not, or, with a warning, if they are
            damaged in the file of a run that has not ended.

    After `close`, these attributes and `models` remain; everything else raises RecordingError.
    Series, marks and events that were read before remain too.

    Raises:
        NotARecordingError: the file is not HDF5, or was not written by flexrec.
        VersionError: a newer flexrec wrote it.
        DamagedError: its data is damaged; reading values may raise this too.
        RecordingError: the file does not exist or cannot be read, or this object was closed.
        MissingDependency: for this URL, fsspec or a package that it needs is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = copied(path) if is_url(path) else Path(path)
        self._forget = weakref.finalize(self, remove, self.path) if is_url(path) else None
        self._opened, self.complete = open_store(self.path)
        self.config: Any = self._told(lambda: stored_json(self._store, self.path, fmt.CONFIG))
        self.facts: dict[str, Any] | None = self._told(lambda: stored_facts(self._store, self.path))
        self._columns = ColumnReader(self.path, self._store)

    @property
    def _store(self) -> Store:
        self._opened.file.check_open()
        return self._opened

    @property
    def columns(self) -> ColumnReader:
        """Reads the keys' values, a bounded number at a time, for replay. Internal."""
        self._opened.file.check_open()
        return self._columns

    def _told(self, read: Callable[[], Any]) -> Any:
        """The config or the facts; None, with a warning, if a disk changed them in a live file."""
        try:
            return read()
        except DamagedError as error:
            if self.complete:
                raise
            warn(f"{error}; it is left out")
            return None

    def __repr__(self) -> str:
        keys = counted(len(self._columns.of), "key")
        state = "complete" if self.complete else "not complete"
        if self._opened.file.is_closed:
            return f"<Recording {self.path}: {keys}, closed here>"
        return f"<Recording {self.path}: {keys}, {counted(self.event_count, 'event')}, {state}>"

    @property
    def models(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The layers of models: what each is, by the model's and the layer's name.

        >>> Recording("run.h5").models
        {}

        The fields of a layer are `class`; `parameters` and `trainable`, the numbers of elements of
        its own parameters; `dtype`; and of the first armed step `order`, the layer's place in the
        order of the first calls (None if it was not called), `calls`, and `output`, the shape of
        its first output. If its weights are sharded over processes (DTensor), `shard` has this
        process's place (`at`) in the sharded dimensions of the mesh, their sizes (`of`), the number
        of elements that it holds (`weights`), and whether they are `trainable`; `at` and `of` are
        None if they are not the same for all its weights.

        These are the layers of watched models that were called, and those whose output
        `Recorder.activations` recorded. If the latter are not watched, `order`, `calls` and
        `output` are None, and `flexrec diff` leaves them out.
        """
        return models_of(self.facts or {})

    @property
    def marks(self) -> Marks:
        """The `log` and `reset` calls, in order."""
        self._opened.file.check_open()
        return self._marks

    @cached_property
    def _marks(self) -> Marks:
        found = [self._store.marks(*block) for block in self._store.blocks()]
        return marks_of(self._store, found)

    def keys(self) -> list[str]:
        """The keys, in the order of their first appearance."""
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
    def created(self) -> float:
        """When it was made, in seconds since 1970; 0 if that is unknown."""
        return self._store.created

    @property
    def event_count(self) -> int:
        """The number of events (adds, logs and resets) that were not superseded."""
        return self._store.effective_count()

    @property
    def superseded(self) -> int:
        """The number of events superseded because the run was resumed at an earlier step."""
        return sum(view.effective_count() for view in self._store.views()[1:])

    @property
    def resumes(self) -> int:
        """How often the run was resumed; resumes with nothing recorded in between count once."""
        return self._store.resumes

    def taken_back(self) -> "Recording":
        """The same recording, with only its superseded events; closing one closes both."""
        other = copy(self)
        other.__dict__.pop("_marks", None)  # the cached marks of this one
        other._opened = self._store.superseded()
        other._columns = ColumnReader(self.path, other._opened)
        return other

    def resume_points(self) -> list[ResumePoint]:
        """Every resume in file order, including those that a later resume superseded."""
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
        """The number of events that the recorder reports it could not write."""
        found = [self._store.marks(*block)[1] for block in self._store.blocks()]
        total = sum(float(marks["x"][marks["code"] == fmt.DROPPED].sum()) for marks in found)
        if not 0 <= total < math.inf:
            raise self._store.file.damaged(f"{total:g} events were dropped")
        return int(total)

    def counts(self, first: int = 0) -> dict[str, int]:
        """The number of values of each key, from the event at position `first` on."""
        return self.columns.counts(first)

    def is_number(self, key: str) -> bool:
        """Whether every value of the key is a single number."""
        return self.columns.is_number(key)

    def kind(self, key: str) -> str:
        """The type of the key's values, such as `number` or `(float32:2, int64:1)`."""
        return self.columns.kind(key)

    @property
    def state(self) -> str:
        """One line that says whether the run has ended, and up to which step it is whole."""
        resumed = f"resumed {self.resumes} times, " if self.resumes > 1 else "resumed once, "
        resumed += f"{counted(self.superseded, 'event')} superseded"
        if self.complete:
            said = (
                "closed, except for its last bytes (flexrec repair)"
                if self._store.file.unclosed
                else "closed"
            )
            return f"{said}; {resumed}" if self.resumes else said
        last = self._store.last_step
        none = "no step was recorded" if self._store.count else "nothing was recorded"
        where = none if last is None else f"it is whole up to step {last}"
        if self._store.cut:
            why = "was torn by a loss of power" if self._store.is_torn else "is not whole"
            where += f"; what follows, {counted(self._store.cut, 'event')}, {why} and left out"
        damaged = self._store.damaged_from(is_strict=False)
        if damaged is not None:
            where += f"; event {damaged} or one written with it is not as it was: flexrec verify"
        more = f"; {resumed}" if self.resumes else ""
        return f"the run has not ended, or was killed; {where}{more}"

    def series(self, keys: Iterable[str]) -> dict[str, Series]:
        """Read several keys in one pass over the file, which is faster than one by one."""
        return self.columns.series(keys)

    def rows(self, key: str) -> Iterator[Row]:
        """Iterate over one key's values in order, with a bounded number of them in memory."""
        return self.columns.rows(key)

    def to_pandas(self, keys: Iterable[str] | None = None) -> "DataFrame":
        """Return numbers and strings as a pandas DataFrame, one row per value.

        >>> frame = Recording("run.h5").to_pandas(["train_loss"])
        >>> frame.groupby("key", observed=True)["value"].count()["train_loss"]
        np.int64(10)

        The columns are `key` (categorical), `step`, `time` (seconds since 1970) and `value`. Rows
        are in the order of the keys, and within a key in the order of the events.

        Args:
            keys: the keys to read; None reads all keys whose values are numbers or strings.

        Raises:
            MissingDependency: pandas is not installed.
            RecordingError: one of `keys` has arrays.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependency.of("to_pandas", "pandas") from error
        chosen = [key for key in self if self.columns.is_plain(key)] if keys is None else list(keys)
        odd = [f"{key} is {self.kind(key)}" for key in chosen if not self.columns.is_plain(key)]
        if odd:
            raise RecordingError(
                f"{self.path}: to_pandas takes keys of numbers and strings only: {listed(odd)}"
            )
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
        """Iterate over all events in the order in which they were recorded."""
        return events_of(self._store)

    def follow(
        self, *, poll_seconds: float = 0.5, timeout: float | None = None
    ) -> "Iterator[Event | Superseded]":
        """Iterate over all events, waiting for new ones until the recording is closed.

        >>> kinds = [type(event).__name__ for event in Recording("run.h5").follow()]
        >>> kinds.count("Log")
        2

        The run may be killed and resumed meanwhile. When it resumes at an earlier step, a
        `Superseded` is yielded, which says how many of the preceding events are superseded.

        Args:
            poll_seconds: how often the file is checked for new events.
            timeout: stop after this many seconds without a new event; None waits for ever.

        Raises:
            RecordingError: the file can no longer be read.
        """
        self._opened.file.check_open()
        from flexrec.recorder.storage.follow import follow

        return follow(self.path, poll_seconds=poll_seconds, timeout=timeout)

    def close(self) -> None:
        """Close the file; see above for what remains."""
        self._opened.close()
        if self._forget is not None:
            self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
