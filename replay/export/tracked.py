"""What other trackers take of a recording: numbers, texts and histograms, in the order of steps.

tensorboard.py, wandb.py, mlflow.py and trackio.py write it, each with its tracker's own writer.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.events import Add, State
from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.series import Series
from flexrec.replay.meters import build

_PIECE = 1 << 16  # values that are in memory as Python's objects


def is_tracked(run: Recording, key: str) -> bool:
    """Whether a key has a place: numbers, texts, and what HistogramMeter counted."""
    return run.columns.is_plain(key) or run.kind(key).startswith("state of HistogramMeter")


def project_of(run: Recording) -> str:
    """A name for the recording's project: that of its folder."""
    return run.path.resolve().parent.name or "flexrec"


def config_of(run: Recording) -> dict[str, Any]:
    """The recording's config; empty if it has none."""
    return dict(run.config) if isinstance(run.config, Mapping) else {}


def bins_of(state: State) -> tuple[NDArray[Any], NDArray[Any]]:
    """A histogram's counts (N,) and edges (N + 1,)."""
    meter: Any = build(state.reduction.meter, state.reduction.args())
    meter.merge(*state)
    counts, edges, _ = meter.value()
    return counts, edges


def adds_by_step(run: Recording, keys: Sequence[str]) -> Iterator[Add]:
    """The keys' values in the order of their steps, and at one step as they were recorded."""
    found = list(run.series(keys).values())
    for _, group in groupby(_values(found), itemgetter(0, 1)):
        values = list(group)
        step, _, time, *_ = values[0]
        added = {found[key].key: found[key].value[row] for *_, key, row in values}
        yield Add({key: _plain(value) for key, value in added.items()}, step, time)


def _values(found: Sequence[Series]) -> Iterator[tuple[int, int, float, int, int]]:
    """Each value's step, position and time; its key's number, and its row there."""
    if not found:
        return
    counts = [len(series) for series in found]
    key = np.repeat(np.arange(len(found)), counts)
    row = np.concatenate([np.arange(count) for count in counts])
    step, position, time = (
        np.concatenate([getattr(series, name) for series in found])
        for name in ("step", "position", "time")
    )
    order = np.lexsort((key, position, step))
    for first in range(0, len(order), _PIECE):
        at = order[first : first + _PIECE]
        yield from zip(
            *(each[at].tolist() for each in (step, position, time, key, row)), strict=True
        )


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, np.floating) else value
