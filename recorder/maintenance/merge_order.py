"""Merge the order of several recordings' events, with a bounded number of them in memory.

merge.py has matched the marks; values are not read here.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.events import Array
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import Ints
from flexrec.recorder.storage.store import Codes, Store

LEAST = np.iinfo(np.int64).min
_HELD = 1 << 18  # waiting events, of all recordings together
_FEW = 1 << 12  # fewest events to read of one recording, however many recordings there are
_LONG = 1 << 20  # events that are kept while their step goes on
_WAITING = np.dtype(
    [("stretch", "<i8"), ("step", "<i8"), ("position", "<i8"), ("code", "<i8"), ("slots", "<i8")]
)


@dataclass
class Source:
    """A recording that is merged.

    Attributes:
        store: its events.
        own: the position from which on its logs and resets are used; earlier ones are taken from
            another source.
        cuts: for a source without logs and resets: for each mark of the others, the last step whose
            events go before it. None if the source has marks.
    """

    store: Store
    own: int
    cuts: Ints | None = None

    def __post_init__(self) -> None:
        """Find columns that together have the steps of all adds."""
        held = self.store.columns_held()
        self._timed = list({self.store.within(column): column for column in held}.values())

    def takes(self, codes: Codes, positions: Ints) -> NDArray[np.bool_]:
        """Which events are merged: not superseded ones, resumes, or marks of another source."""
        found: NDArray[np.bool_] = (codes >= 0) | (codes == fmt.DROPPED)
        return found | ((codes >= fmt.RESET) & (positions >= self.own))

    def steps(self, first: int, last: int) -> Ints:
        """The step of each add; LEAST for other events."""
        found = np.full(last - first, LEAST)
        for chunk in self.store.chunks(self._timed, first, last, "times"):
            found[chunk.positions - first] = chunk.step
        return found

    def waiting(self, most: int) -> Iterator[Array]:
        """Iterate over the events to merge with their sort keys, at most `most` at a time."""
        passed = 0
        for first, last in self._spans(most):
            codes, steps = self.store.codes(first, last), self.steps(first, last)
            is_mark = (codes == fmt.LOG) | (codes == fmt.RESET)
            stretch = passed + np.cumsum(is_mark) - is_mark
            # Events after which steps went back are already merged by then, and not needed again.
            steps, passed = _highest(steps, stretch), passed + int(is_mark.sum())
            if self.cuts is not None:
                stretch = np.searchsorted(self.cuts, steps)
            positions = np.arange(first, last)
            taken = np.flatnonzero(self.takes(codes, positions))
            rows = np.empty(len(taken), _WAITING)
            rows["stretch"] = (2 * stretch + is_mark)[taken]  # a mark comes after its stretch
            rows["step"], rows["position"], rows["code"] = steps[taken], taken + first, codes[taken]
            rows["slots"] = self.store.sizes(rows["code"])
            if len(rows):
                yield rows

    def _spans(self, most: int) -> Iterator[tuple[int, int]]:
        """Iterate over spans of at most `most` events, each within a block."""
        for begin, end in self.store.blocks():
            for first in range(begin, end, most):
                yield first, min(first + most, end)


def _highest(steps: Ints, stretch: Ints) -> Ints:
    """For each event, the highest step so far in its stretch, among the given events."""
    levels, level = np.unique(steps, return_inverse=True)
    floor = (stretch - stretch[0]) * len(levels)
    found: Ints = levels[np.maximum.accumulate(floor + level) - floor]
    return found


def in_order(sources: Sequence[Source]) -> Iterator[tuple[Array, Array]]:
    """Iterate over all merged events in order, as arrays of source numbers and of events."""
    number = np.min_scalar_type(len(sources) - 1)
    queues = [source.waiting(max(_HELD // len(sources), _FEW)) for source in sources]
    held = [np.empty(0, _WAITING) for _ in sources]
    while True:
        held = [rows if len(rows) else next(q, rows) for rows, q in zip(held, queues, strict=True)]
        ends, rows = np.cumsum([len(each) for each in held]), np.concatenate(held)
        if not len(rows):
            return
        order = np.lexsort((rows["step"], rows["stretch"]))  # stable: the sources stay in order
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        # More events of a source may follow its waiting ones, so nothing later can be merged yet.
        order = order[: int(place[ends[np.diff(ends, prepend=0) > 0] - 1].min()) + 1]
        of = np.searchsorted(ends, order, "right").astype(number)
        taken = np.bincount(of, minlength=len(sources)).tolist()
        held = [each[n:] for each, n in zip(held, taken, strict=True)]
        yield of, rows[order]


def in_whole_steps(ordered: Iterable[tuple[Array, Array]]) -> Iterator[tuple[Array, Array]]:
    """Iterate over the same events in pieces that end with a step; a very long step is cut."""
    kept, kept_of = np.empty(0, _WAITING), np.empty(0, np.uint8)
    for of, rows in ordered:
        rows, of = np.concatenate([kept, rows]), np.concatenate([kept_of, of])
        end = len(rows) if len(rows) > _LONG else int(np.flatnonzero(_begins_step(rows))[-1])
        kept, kept_of = rows[end:], of[end:]
        if end:
            yield of[:end], rows[:end]
    if len(kept):
        yield kept_of, kept


def at_whole_steps(rows: Array, ends: Iterable[int]) -> Iterator[int]:
    """Move the ends of blocks back to the end of a step; a block has at least one step."""
    begins, last = np.append(np.flatnonzero(_begins_step(rows)), len(rows)), 0
    for end in ends:
        place = int(np.searchsorted(begins, end, "right")) - 1
        if end > last:
            last = int(begins[place] if begins[place] > last else begins[place + 1])
            yield last


def _begins_step(rows: Array) -> NDArray[np.bool_]:
    """Whether each event is the first of its step, of all recordings."""
    stretch, step = np.diff(rows["stretch"]), np.diff(rows["step"])
    return np.concatenate([[True], (stretch != 0) | (step != 0)])
