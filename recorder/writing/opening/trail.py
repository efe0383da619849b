"""Track what a checkpoint needs to know: the logs not superseded, and the last step's keys."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from flexrec.recorder.events import Array
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import Ints
from flexrec.recorder.storage.store import Codes, of_training, taken_back


class Latest(NamedTuple):
    """The keys recorded at the step of the last add, since the last resume.

    Attributes:
        step: the step of the last add; None if there is none.
        keys: the keys added at that step.
    """

    step: int | None = None
    keys: frozenset[str] = frozenset()

    def after(self, codes: Codes, steps: Ints, keys_of: Callable[[int], Iterable[str]]) -> "Latest":
        """The updated Latest after more events.

        Args:
            keys_of: returns the keys of adds with a code.
        """
        resumes = np.flatnonzero(codes == fmt.RESUME)
        begin = int(resumes[-1]) + 1 if len(resumes) else 0
        before = Latest() if begin else self
        codes, steps = codes[begin:], steps[begin:]
        adds = np.flatnonzero((codes >= 0) & of_training(codes, keys_of))
        if not len(adds):
            return before
        step = int(steps[adds[-1]])
        there = np.unique(codes[adds[steps[adds] == step]]).tolist()
        keys = frozenset(key for code in there for key in keys_of(code))
        return Latest(step, keys | before.keys if before.step == step else keys)


class Resume(NamedTuple):
    """A resume: its position, the first position that it supersedes, and its time in seconds."""

    position: int
    first: float = 0.0
    time: float = 0.0


class Marked(NamedTuple):
    """The positions of the logs, and the resumes, among some events."""

    logs: list[int]
    resumes: list[Resume]


def marked(rows: Array, values: Array, first: int) -> Marked:
    """The logs and resumes among events from position `first` on, given in the file's layout.

    Args:
        values: the values, beginning with the first event's slots.
    """
    resumes = np.flatnonzero(rows["code"] == fmt.RESUME)
    x = values[rows["start"][resumes] - rows["start"][0]] if len(resumes) else resumes
    logs = (np.flatnonzero(rows["code"] == fmt.LOG) + first).tolist()
    places, times = (resumes + first).tolist(), rows["time"][resumes].tolist()
    found = zip(places, x.astype(float).tolist(), times, strict=True)
    return Marked(logs, [Resume(*each) for each in found])


class Trail:
    """The logs and resumes of a recording."""

    def __init__(self) -> None:
        self._logs = list[int]()
        self._resumes = list[Resume]()

    def note(self, more: Marked, first: int) -> None:
        """Set the logs and resumes from position `first` on, replacing those noted there.

        If an interrupt comes before events count as written, they are written and noted again.
        """
        self._logs[bisect_left(self._logs, first) :] = more.logs
        self._resumes[bisect_left(self._resumes, Resume(first)) :] = more.resumes

    def through(self, count: int, more: Marked) -> Marked:
        """All logs and resumes.

        Args:
            count: use what was noted only for events before this position.
            more: the logs and resumes from that position on.
        """
        logs = self._logs[: bisect_left(self._logs, count)]
        resumes = self._resumes[: bisect_left(self._resumes, Resume(count))]
        return Marked(logs + more.logs, resumes + more.resumes)


def superseded(resumes: list[Resume], until: int) -> list[tuple[int, int]]:
    """The ranges of events that were superseded when there were only those before `until`."""
    return taken_back([(at, first) for at, first, _ in resumes if at < until], until)


def holding(marked: Marked, until: int) -> list[int]:
    """The positions of the logs that were not superseded, as `superseded` counts."""
    found, begin, logs = list[int](), 0, marked.logs
    for first, last in [*superseded(marked.resumes, until), (until, until)]:
        found += logs[bisect_left(logs, begin) : bisect_left(logs, first)]
        begin = last
    return found
