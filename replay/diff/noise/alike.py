"""Find what all references agree on to the bit, and where a run does not agree with them.

Batches, learning rates, attributes, random states and the structure of a run are the same in runs
that differ by rounding alone. Where the references agree on them, they are compared to the bit.
"""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from flexrec.recorder.layers.tracing import format as fmt
from flexrec.recorder.layers.tracing.format import Event
from flexrec.replay.diff.blame.places import place_of
from flexrec.replay.diff.blame.traces import (
    Key,
    TracedPair,
    TracedStep,
    differing,
    first_pair,
    in_step,
)
from flexrec.replay.diff.model import Change, Keys
from flexrec.replay.diff.run import Run

EVENTS = frozenset(("data", "settings", "attributes", "random"))
"""Kinds of a trace's events that rounding does not change."""

_COUNTS = frozenset(("zero_fraction", "dead", "nan_count", "inf_count", "nonfinite"))
"""Statistics that are counts: their spread is 0 up to some step, and then not."""


def is_exact(key: str) -> bool:
    """Whether a key is of data or of the optimizer's settings, which rounding does not change.

    >>> is_exact("batch/fingerprint"), is_exact("lr"), is_exact("train_loss")
    (True, True, False)
    """
    place = place_of(key)
    return not place.layer and place.stage in ("data", "optimizer")


def is_judged(key: str, runs: Iterable[Run]) -> bool:
    """Whether a key can be judged by a spread: numbers of all runs that rounding changes."""
    of = key.rpartition("/")[2]
    if is_exact(key) or of == "fingerprint" or (of in _COUNTS and place_of(key).layer):
        return False
    return all(key in run and run.is_number(key) for run in runs)


def unlike(found: Sequence[Change], others: Iterable[Sequence[Change]]) -> tuple[Change, ...]:
    """The entries of config or facts that differ though they are equal in all references."""
    noisy = {change.name for other in others for change in other}
    return tuple(change for change in found if change.name not in noisy)


def structure(found: Keys, others: Sequence[Keys]) -> Keys:
    """The keys and values that only one run has, though all references have the same."""
    only_a = [key for key in found.only_a if not any(key in other.only_a for other in others)]
    only_b = [key for key in found.only_b if not any(key in other.only_b for other in others)]
    unmatched = {
        key: counts
        for key, counts in found.unmatched.items()
        if not any(key in other.unmatched for other in others)
    }
    return Keys(found.compared, (), tuple(only_a), tuple(only_b), unmatched)


def first_unlike(a: Run, b: Run, references: Sequence[Run]) -> TracedPair | None:
    """The first traced step at which a run differs in what all references agree on."""
    if not all(fmt.VALUES in run for run in (a, b, *references)):
        return None
    agreed = _Agreed(a, references)
    pairs = ((one, agreed.masked(one, other)) for one, other in in_step(a, b))
    return first_pair(pairs, side_kinds=())


class _Agreed:
    """What the traces of all references agree on: some events, and perhaps their order."""

    def __init__(self, a: Run, references: Sequence[Run]) -> None:
        self._noisy, self._have_one_order = set[Key](), True
        for one, other in chain.from_iterable(in_step(a, each) for each in references):
            self._noisy |= differing(one, other)
            self._have_one_order &= one.has_order_of(other)

    def masked(self, one: TracedStep, other: TracedStep) -> TracedStep:
        """The second step, with the first one's values where the references do not agree."""
        usual, own = one.by_key(), other.by_key()
        keep = not self._have_one_order or one.has_order_of(other)
        events = one.events if keep else other.events
        values = [
            own.get(e.key, usual.get(e.key, 0)) if self._is_exact(e) else usual.get(e.key, 0)
            for e in events
        ]
        return other._replace(events=events, values=np.array(values, np.int64))

    def _is_exact(self, event: Event) -> bool:
        return event.kind in EVENTS and event.key not in self._noisy
