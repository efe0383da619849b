"""Several recordings' events in one order: whose turn it is, a bounded number of them at a time.

Which marks are whose was found in merge.py; the values are of no concern here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.events import Array
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.storage.arrays import Ints
from flexrec.recorder.storage.store import Codes, Store

LEAST = np.iinfo(np.int64).min
_HELD = 1 << 18  # events that wait for their turn, of all recordings together
_FEW = 1 << 12  # of one of them, however many they are
_WAITING = np.dtype(
    [("stretch", "<i8"), ("step", "<i8"), ("position", "<i8"), ("code", "<i8"), ("slots", "<i8")]
)


@dataclass
class Source:
    """A recording that is merged.

    Attributes:
        store: its events.
        own: the position from which on its logs and resets are taken: earlier ones are another's.
        cuts: of one without logs and resets, up to which step its events come before each of the
            others'; None where its own tell.
    """

    store: Store
    own: int
    cuts: Ints | None = None

    def __post_init__(self) -> None:
        """Find columns that have all steps among them."""
        held = self.store.columns_held()
        self._timed = list({self.store.within(column): column for column in held}.values())

    def takes(self, codes: Codes, positions: Ints) -> NDArray[np.bool_]:
        """Which events are taken: not what is superseded, nor resumes, nor marks of another's."""
        found: NDArray[np.bool_] = (codes >= 0) | (codes == fmt.DROPPED)
        return found | ((codes >= fmt.RESET) & (positions >= self.own))

    def steps(self, first: int, last: int) -> Ints:
        """The step of each add; LEAST of what is none."""
        found = np.full(last - first, LEAST)
        for chunk in self.store.chunks(self._timed, first, last, "times"):
            found[chunk.positions - first] = chunk.step
        return found

    def waiting(self, most: int) -> Iterator[Array]:
        """What is taken, and all that puts it in order, from at most so many events at a time."""
        passed = 0
        for first, last in self._spans(most):
            codes, steps = self.store.codes(first, last), self.steps(first, last)
            is_mark = (codes == fmt.LOG) | (codes == fmt.RESET)
            stretch = passed + np.cumsum(is_mark) - is_mark
            # Whose steps went back before this has had its turn by then, and so is not asked again.
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
        """Go through the events, at most so many at a time, and no more than a block."""
        for begin, end in self.store.blocks():
            for first in range(begin, end, most):
                yield first, min(first + most, end)


def _highest(steps: Ints, stretch: Ints) -> Ints:
    """Of each event the highest step so far in its stretch, of those given."""
    levels, level = np.unique(steps, return_inverse=True)
    floor = (stretch - stretch[0]) * len(levels)
    found: Ints = levels[np.maximum.accumulate(floor + level) - floor]
    return found


def in_order(sources: Sequence[Source]) -> Iterator[tuple[Array, Array]]:
    """All that is taken: which sources the next events are from, and the events."""
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
        # After what waits of a source may come more of it: nothing later can have its turn yet.
        order = order[: int(place[ends[np.diff(ends, prepend=0) > 0] - 1].min()) + 1]
        of = np.searchsorted(ends, order, "right").astype(number)
        taken = np.bincount(of, minlength=len(sources)).tolist()
        held = [each[n:] for each, n in zip(held, taken, strict=True)]
        yield of, rows[order]
