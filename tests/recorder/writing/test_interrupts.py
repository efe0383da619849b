"""Ctrl-C at any moment of an add or a flush: the event is whole or out, and recording goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.events import Add, Log, normalise
from support.event_cases import same
from support.moments import apart, at_moment


def interrupted(work: Callable[[], object], moment: int) -> bool:
    """Run it with Ctrl-C at the n-th moment at which Python would notice one; false: it ended."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    try:
        return at_moment(moment, work, interrupt)
    except KeyboardInterrupt:
        return True


@pytest.mark.parametrize(
    "values",
    [{"a": 1.5, "b": 2.5}, {"a": 1.5, "new": 2.5}, {"a": np.full(4, 1.5), "text": "t"}],
    ids=["known", "new keys", "arrays"],
)
@pytest.mark.parametrize("flushes", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a generator
def test_ctrl_c_at_any_moment_leaves_the_event_whole_or_out(
    tmp_path: Path, values: dict[str, Any], flushes: bool
) -> None:
    def work() -> None:
        rec.add(values)
        if flushes:
            rec.flush()

    moment, stopped = 0, True
    while stopped:
        path = tmp_path / f"{moment}.h5"
        with Recorder(path, facts=False, flush_seconds=60) as rec:
            for _ in range(2):
                rec.add(a=0.5, b=1.0)
            rec.log(0)
            stopped = interrupted(work, moment)
            rec.add(a=2.5, b=3.0)
            rec.add({"a": np.zeros(2), "last": 4.0})
            rec.log(1)
        with Recording(path) as run:
            events = list(run.events())
        adds = [event.values for event in events if isinstance(event, Add)]
        assert [dict(some) for some in adds[:2]] == [{"a": 0.5, "b": 1.0}] * 2
        assert adds[-2] == {"a": 2.5, "b": 3.0}
        assert list(adds[-1]) == ["a", "last"]
        assert len(adds) in ((4, 5) if stopped else (5,))
        if len(adds) == 5:
            assert list(adds[2]) == list(values)
            assert all(same(adds[2][key], normalise(key, values[key])) for key in values)
        assert sum(isinstance(event, Log) for event in events) == 2
        moment += apart(4 if flushes else 1)  # a flush has many
    assert moment > 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a generator
def test_ctrl_c_at_any_moment_of_close_loses_nothing(tmp_path: Path) -> None:
    """The second call, or the one at exit, goes on where the first was; and so does a resume."""
    moment, stopped = 0, True
    while stopped:
        path = tmp_path / f"{moment}.h5"
        rec = Recorder(path, facts=False, flush_seconds=60)
        for i in range(5):
            rec.add({"a": float(i), "d": np.full(3, i)})
        stopped = interrupted(rec.close, moment)
        rec.close()
        with Recorder(path, mode="resume", facts=False, flush_seconds=60) as rec:
            rec.add({"a": 5.0, "d": np.full(3, 5)})
        with Recording(path) as run:
            assert run.complete
            assert run["a"].value.tolist() == list(range(6))
            assert [d.tolist() for d in run["d"].value] == [[i] * 3 for i in range(6)]
        moment += apart(53)
    assert moment > 300
