"""Lines: what is drawn where a line shows nothing."""

import pytest

from flexrec.replay.plots.window import Trace
from flexrec.replay.sinks.visdom import payload
from support.window_cases import window

NAN = float("nan")


@pytest.mark.parametrize(
    ("x", "y", "mode"),
    [
        ([0.0, 1.0], [1.0, 1.0], "lines"),
        ([0.0, 1.0, 2.0], [1.0, NAN, 1.0], "lines+markers"),
        ([0.0], [1.0], "lines+markers"),
        ([3.0, 3.0], [1.0, 1.0], "lines+markers"),  # logged twice at one x, as after a resume
        ([3.0, 3.0], [1.0, 2.0], "lines"),
        ([3.0, 3.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0], "lines"),
        ([3.0, 3.0, 4.0], [1.0, 1.0, NAN], "lines+markers"),
    ],
)
def test_points_that_no_line_shows_are_marked(x: list[float], y: list[float], mode: str) -> None:
    for kind in ("line", "dual_axis_lines"):
        drawn = payload(window(kind, Trace("a", y, x), Trace("b", [1.0, 2.0], [0.0, 1.0])))
        assert drawn["data"][0]["mode"] == mode


def test_points_beside_zeros_are_marked_on_a_logarithmic_axis() -> None:
    def mode(*y: float, **opts: str) -> object:
        return payload(window("line", Trace("a", y, [0.0, 1.0, 2.0]), **opts))["data"][0]["mode"]

    assert mode(0.5, 0.0, 0.0, ytype="log") == mode(0.0, 0.5, -1.0, ytype="log") == "lines+markers"
    assert mode(0.5, 0.5, 0.0, ytype="log") == mode(0.5, 0.0, 0.0) == "lines"


def test_lone_points_of_phases_look_different() -> None:
    traces = [Trace(name, [1.0], [0.0]) for name in ("train", "val", "test")]
    dashes = ["solid", "dash", "dot"]
    drawn = payload(window("line", *traces, dash=dashes))["data"]
    assert len({trace["marker"]["symbol"] for trace in drawn}) == 3
    asked = payload(window("line", *traces, dash=dashes, markersymbol="cross"))["data"]
    assert {trace["marker"]["symbol"] for trace in asked} == {"cross"}
