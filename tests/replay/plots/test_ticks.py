"""Ticks at whole numbers and decades, and what the axes are called."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.errors import DefinitionError
from flexrec.replay import FlexLogger, Trace, Window, play, preset
from flexrec.replay.plots.ticks import SymmetricLog, set_ticks
from flexrec.replay.sinks.base import ListSink
from flexrec.replay.sinks.visdom import payload

pytestmark = pytest.mark.viewing


def ticks(axis: str, values: Any, **opts: Any) -> dict[str, Any]:
    layout: dict[str, Any] = {}
    set_ticks(layout, axis, np.array(values, float), opts)
    found: dict[str, Any] = layout.get(f"{axis}axis", {})
    return found


def test_few_whole_numbers_have_a_tick_each() -> None:
    assert ticks("x", [0, 1, 4]) == {"dtick": 1}
    assert ticks("x", [0, 0.5, 4]) == {}
    assert ticks("x", [0, 1000]) == {}
    assert ticks("x", [np.nan]) == {}
    assert ticks("x", [0, 1], xtickstep=0.5) == {}
    assert ticks("x", [0, 1], xtype="date") == {"nticks": 4, "tickangle": 0, "automargin": True}
    assert ticks("y", [0, 1]) == {}


def test_few_counts_of_a_histogram_have_whole_ticks() -> None:
    def axis(samples: list[float], **opts: Any) -> dict[str, Any]:
        drawn = payload(Window("w", None, "histogram", (Trace("h", np.array(samples)),), opts))
        found: dict[str, Any] = drawn["layout"].get("yaxis", {})
        return found

    assert axis([0.0, 0.0, 1.0])["dtick"] == 1
    assert "dtick" not in axis([0.0, 0.0, 1.0], ytickstep=0.5)
    assert "dtick" not in axis([0.0] * 1000)


def test_a_logarithmic_axis_has_ticks_at_decades() -> None:
    assert ticks("y", [1e-3, 1.0], ytype="log") == {"exponentformat": "power", "dtick": 1}
    assert ticks("y", [1e-30, 1.0], ytype="log")["dtick"] == 4
    none = {"exponentformat": "power", "dtick": 1, "showticklabels": False}
    assert ticks("y", [0.0, -1.0], ytype="log") == none
    few = ticks("y", [0.3, 3.0], ytype="log")
    inside = [t for t in few["ticktext"] if 0.3 <= float(t) <= 3]
    assert inside == ["0.5", "1", "2"]


def test_one_line_that_the_title_names_needs_no_legend() -> None:
    def legend(title: str, *names: str, **opts: Any) -> Any:
        traces = tuple(Trace(name, [1.0], [0.0]) for name in names)
        window = Window("w", None, "line", traces, {"title": title, **opts})
        return payload(window)["layout"].get("showlegend")

    assert legend("Train loss", "loss") is False
    assert legend("Loss", "train") is not False
    assert legend("Loss", "loss", "train") is not False
    assert legend("Loss", "loss", showlegend=True) is not False


def test_cells_of_a_small_matrix_have_their_numbers() -> None:
    def drawn(matrix: Any, **opts: Any) -> dict[str, Any]:
        window = Window("w", None, "heatmap", (Trace("m", np.array(matrix)),), opts)
        found: dict[str, Any] = payload(window)["data"][0]
        return found

    shares = drawn([[0.875, 0.0], [np.nan, 1.0]], numbers=True)
    assert shares["text"] == [["88", ""], ["", "100"]]
    assert drawn([[12, 0], [3, 4]], numbers=True)["text"] == [["12", ""], ["3", "4"]]
    assert "text" not in drawn(np.eye(21), numbers=True)
    assert "text" not in drawn(np.eye(2))
    assert drawn(np.eye(2), numbers=True, colormap="Jet")["colorscale"] == "Jet"


@pytest.mark.parametrize("plain", [False, True])
def test_axes_are_called_as_log_calls_them(tmp_path: Path, plain: bool) -> None:
    logs: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {
        "epoch": [((), {"epoch": 0}), ((), {"epoch": 1})],
        "step": [((), {}), ((), {})],
        "": [((7,), {}), ((8,), {})],
        "mixed": [((), {"epoch": 0}), ((), {"round": 1})],
    }
    for name, calls in logs.items():
        path = tmp_path / f"{name}.h5"
        logger = FlexLogger(preset("loss"), sink=ListSink(), recorder=Recorder(path, facts=False))
        for args, named in calls:
            logger.add(train_loss=1.0)
            logger.step()
            logger.log(*args, **named)
        (live,) = logger.windows()
        assert live.opts.get("xlabel", "") == (name if name != "mixed" else "")
        logger._recorder.close()  # type: ignore[union-attr]
        with Recording(path) as run:
            (window,) = play(run, preset("loss"), plain=plain)
            assert window.opts == live.opts
            assert play(run, preset("loss"), every=1, plain=plain)[0].opts["xlabel"] == "step"


def test_a_symmetric_logarithm_keeps_order_and_signs() -> None:
    values = np.array([-1e300, -5.0, -1e-9, 0.0, 1e-9, 5.0, 1e300])
    places = SymmetricLog(np.array([-0.05, 0.02])).places(values)
    assert (np.diff(places) > 0).all()
    assert places.tolist() == (-places[::-1]).tolist()
    assert SymmetricLog(np.array([5.0])).places(np.array([1.0, 9.0, 99.0])).tolist() == (
        pytest.approx([math.log10(2), 1.0, 2.0])
    )
    assert np.isnan(SymmetricLog(np.zeros(2)).places(np.array([np.nan, np.inf]))).all()


@pytest.mark.parametrize(
    ("typical", "values", "expected"),
    [
        ([0.1], [-1.0, 1.0], ["-1", "-0.5", "-0.1", "0", "0.1", "0.5", "1"]),
        ([1e-5], [-1e-1, 1e-1], ["-0.1", "-0.01", "-0.001", "-0.0001", "0",
                                 "0.0001", "0.001", "0.01", "0.1"]),
        ([1.0], [1.02, 1.4], ["1.1", "1.2", "1.3", "1.4"]),
        ([0.0], [0.0, 0.0], ["0"]),
        ([np.nan], [np.nan], None),
        ([1e-320], [-1e308, 1e308], None),
    ],
)  # fmt: skip
def test_a_symmetric_log_axis_has_ticks_apart(
    typical: list[float], values: list[float], expected: list[str] | None
) -> None:
    found = SymmetricLog(np.array(typical)).ticks(np.array(values))
    if expected is not None:
        assert found["ticktext"] == expected
    places = found.get("tickvals", [])
    assert places == sorted(places)
    assert all(map(math.isfinite, places))


def test_a_guide_is_a_line_along_all_x() -> None:
    traces = (Trace("a", [1.0, 2.0], [3.0, 5.0]), Trace("b", [1.0], [4.0]))
    window = Window("w", None, "line", traces, {"guide": 1e-3})
    *_, guide = payload(window)["data"]
    assert (guide["x"], guide["y"], guide["showlegend"]) == ([3, 5], [1e-3, 1e-3], False)
    with pytest.raises(DefinitionError, match="guide must be a number"):
        payload(Window("w", None, "line", traces, {"guide": "x"}))
