"""What other trackers take of a recording: numbers, texts and histograms, in the order of steps.

tensorboard.py, wandb.py, mlflow.py and trackio.py write it, each with its tracker's own writer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import counted
from flexrec.recorder.events import Add, State
from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.series import Series
from flexrec.replay.meters import build

_PIECE = 1 << 16  # values that are in memory as Python's objects
LAST = 253_402_300_799  # the last second of the year 9999


def is_tracked(run: Recording, key: str) -> bool:
    """Whether a key has a place: numbers, texts, and what HistogramMeter counted."""
    return run.columns.is_plain(key) or run.kind(key).startswith("state of HistogramMeter")


def project_of(run: Recording) -> str:
    """A name for the recording's project: that of its folder."""
    return utf8(run.path.resolve().parent.name) or "flexrec"


def name_of(run: Recording) -> str:
    """A name for the run: that of the recording's file."""
    return utf8(run.path.stem)


def config_of(run: Recording) -> dict[str, Any]:
    """The recording's config; empty if it has none."""
    return _encodable(dict(run.config)) if isinstance(run.config, Mapping) else {}


def utf8(text: str) -> str:
    """The text as UTF-8 can have it: lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def _encodable(value: Any) -> Any:
    if isinstance(value, dict):
        return {utf8(name): _encodable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    return utf8(value) if isinstance(value, str) else value


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


class Dated:
    """Those of the adds whose time is in a year from 1970 to 9999, as calendars have them.

    Attributes:
        left_out: how many values the others have.
    """

    def __init__(self, adds: Iterable[Add]) -> None:
        self._adds, self.left_out = adds, 0

    def __iter__(self) -> Iterator[Add]:
        for add in self._adds:
            if 0 <= add.time <= LAST:
                yield add
            else:
                self.left_out += len(add.values)

    def notes(self) -> list[str]:
        """What was left out."""
        what = "left out: the time is not in the years from 1970 to 9999"
        return [f"{counted(self.left_out, 'value')} {what}"] if self.left_out else []


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
    if isinstance(value, str):
        return utf8(value)
    return float(value) if isinstance(value, np.floating) else value
