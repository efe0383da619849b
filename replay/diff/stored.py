"""Compare keys of two whole recordings by their stored bytes first, so that equal data is not read.

If the bytes differ, values are read up to the first difference. columns.py compares the rest: parts
of recordings, and keys whose steps differ.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.series import Index
from flexrec.replay.diff.columns import KeyDiff, Match, Tolerance, first_of
from flexrec.replay.diff.run import MOST, Run

ROWS = 1 << 14
"""The rows of a key that are read at once: a chunk of a closed recording."""

_EMPTY = np.empty(0, np.int64)


class StoredPair:
    """Two runs that are whole recordings, whose keys are compared by stored bytes."""

    def __init__(self, runs: tuple[Run, Run], files: tuple[Recording, Recording]) -> None:
        self._runs, self._files = runs, files
        self._shared: dict[tuple[frozenset[int], frozenset[int]], _Steps | None] = {}

    @classmethod
    def of(cls, a: Run, b: Run) -> "StoredPair | None":
        """Make a pair; None if one of the runs is a part of a recording."""
        one, other = a.whole, b.whole
        return None if one is None or other is None else cls((a, b), (one, other))

    def compare(self, keys: Sequence[str], tolerance: Tolerance) -> Iterator[KeyDiff]:
        """Compare those of the keys that can be compared this way."""
        one, other = self._files
        waiting: dict[tuple[int, _Steps], list[str]] = {}
        unlike = set[str]()
        for key in keys:
            mine, its = self._names(key)
            steps = self._steps(key)
            if steps is not None:
                waiting.setdefault((one.columns.alike(mine, other.columns, its), steps), []).append(
                    key
                )
        while waiting:
            row, steps = min(waiting, key=lambda place: place[0])
            group = waiting.pop((row, steps))
            if row >= len(steps):
                for key in group:
                    yield KeyDiff(key, steps.match, is_unlike=key in unlike)
                continue
            for start in range(0, len(group), MOST // ROWS):
                some = group[start : start + MOST // ROWS]
                for found in self._block(some, row, steps, tolerance):
                    unlike |= {found.key} if found.is_unlike else set()
                    if found.first is not None:
                        yield found
                    else:
                        place = min(row + ROWS, len(steps)), steps
                        waiting.setdefault(place, []).append(found.key)

    def _names(self, key: str) -> tuple[str, str]:
        """The names of a key in the two recordings."""
        a, b = self._runs
        return a.own(key), b.own(key)

    def _steps(self, key: str) -> "_Steps | None":
        """The steps of a key, if they are the same in both and never fall."""
        one, other = self._files
        mine, its = self._names(key)
        shared = one.columns.added_with(mine), other.columns.added_with(its)
        if not all(shared):
            return None
        if shared not in self._shared:
            self._shared[shared] = _Steps.of(one.columns.index(mine), other.columns.index(its))
        return self._shared[shared]

    def _block(
        self, keys: Sequence[str], row: int, steps: "_Steps", tolerance: Tolerance
    ) -> Iterator[KeyDiff]:
        """Compare the next rows of keys that share their steps."""
        last = min(row + ROWS, len(steps))
        values = [
            file.columns.between(
                [run.own(key) for key in keys], int(where[row]), int(where[last - 1]) + 1
            )
            for file, run, where in zip(self._files, self._runs, steps.positions, strict=True)
        ]
        for key in keys:
            mine, its = self._names(key)
            a, b = values[0][mine], values[1][its]
            yield first_of(key, steps.match, steps.match.step[row:last], a, b, tolerance)


class _Steps:
    """The steps of keys that were added together: the same in both recordings."""

    def __init__(self, index: Index, other: Index) -> None:
        self.match = Match(index.step.copy(), None, None, _EMPTY, _EMPTY)
        self.positions = index.position.copy(), other.position.copy()

    def __len__(self) -> int:
        return len(self.match.step)

    @classmethod
    def of(cls, index: Index, other: Index) -> "_Steps | None":
        """Make the steps; None if they differ, or fall."""
        if not np.array_equal(index.step, other.step) or (np.diff(index.step) < 0).any():
            return None
        return cls(index, other)
