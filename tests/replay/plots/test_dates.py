"""Axes of dates: what is recorded in seconds is drawn as that date."""

import doctest

import numpy as np
import pytest

from flexrec.replay.plots import dates
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.sinks.visdom import payload

pytestmark = pytest.mark.viewing
NOVEMBER = 1_700_000_000.0  # 14 November 2023, in seconds since 1970


def test_the_example() -> None:
    assert doctest.testmod(dates).failed == 0


@pytest.mark.parametrize("kind", ["line", "scatter", "stem"])
def test_seconds_are_drawn_as_dates(kind: str) -> None:
    trace = Trace("t", np.array([1.0, 2.0, 3.0]), np.array([NOVEMBER, np.nan, NOVEMBER + 60]))
    opts = {"xtype": "date", "xtickmin": NOVEMBER, "xtickmax": NOVEMBER + 60, "xtickstep": 60}
    message = payload(Window("w", None, kind, (trace,), opts))
    assert set(message["data"][0]["x"]) == {NOVEMBER * 1000, None, NOVEMBER * 1000 + 60_000}
    assert message["layout"]["xaxis"]["range"] == [NOVEMBER * 1000, NOVEMBER * 1000 + 60_000]
    assert message["layout"]["xaxis"]["dtick"] == 60_000
    assert set(message["data"][0]["y"]) - {0, None} == {1, 2, 3}


def test_columns_stand_at_their_dates() -> None:
    trace = Trace("t", np.ones((2, 2)), np.array([NOVEMBER, NOVEMBER + 60]))
    message = payload(Window("w", None, "heatmap", (trace,), {"xtype": "date"}))
    assert message["data"][0]["x"] == [NOVEMBER * 1000, NOVEMBER * 1000 + 60_000]


def test_other_axes_are_left_alone() -> None:
    trace = Trace("t", np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    message = payload(Window("w", None, "line", (trace,), {"xtype": "log", "ytype": "date"}))
    assert message["data"][0]["x"] == [3.0, 4.0]
    assert message["data"][0]["y"] == [1000.0, 2000.0]
