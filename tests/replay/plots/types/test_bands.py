"""Bands, notes and muted lines as plain traces."""

from typing import Any

import numpy as np

from flexrec.replay.plots.thinning import thin_window
from flexrec.replay.plots.window import Trace, Window, equal
from flexrec.replay.sinks.visdom import payload

X = np.arange(6.0)
BAND = Trace("a train", X, X, run="a", band=(X - 1, X + 1), note="n=3")


def drawn(*traces: Trace, **opts: object) -> list[dict[str, Any]]:
    """What is sent to visdom."""
    window = Window("loss", None, "line", traces, {"title": "Loss", **opts})
    found: list[dict[str, Any]] = payload(window)["data"]
    return found


def test_a_band_is_three_plain_traces() -> None:
    low, high, mean = drawn(BAND)
    assert list(low["y"]) == [-1, 0, 1, 2, 3, 4]
    assert list(high["y"]) == [1, 2, 3, 4, 5, 6]
    assert list(mean["y"]) == [0, 1, 2, 3, 4, 5]
    assert high["fill"] == "tonexty"
    assert high["fillcolor"] == "rgba(60, 107, 232, 0.2)"
    assert "fill" not in low | mean
    for edge in (low, high):
        assert edge["line"]["width"] == 0
        assert edge["showlegend"] is False
        assert edge["hoverinfo"] == "skip"
    assert len({trace["legendgroup"] for trace in (low, high, mean)}) == 1
    assert mean["name"] == "a train (n=3)"
    assert "showlegend" not in mean


def test_lists_of_opts_go_with_their_lines() -> None:
    other = Trace("b train", X, X, run="b", note="n=2")
    colours = {"linecolor": [[1, 2, 3], [4, 5, 6]], "dash": ["dot", "dash"]}
    *edges, first, second = drawn(BAND, other, **colours)
    assert edges[1]["fillcolor"] == "rgba(1, 2, 3, 0.2)"
    assert first["line"] == {"color": "#010203", "dash": "dot"}
    assert second["line"] == {"color": "#040506", "dash": "dash"}
    assert second["name"] == "b train (n=2)"


def test_a_legend_does_not_repeat_the_title() -> None:
    (line,) = drawn(Trace("Learning rate", X, X, note="n=5"), title="Learning rate")
    assert line["name"] == "n=5"


def test_a_gap_splits_the_band() -> None:
    low = np.where(X == 2, np.nan, X - 1)
    traces = drawn(Trace("a", X, X, band=(low, X + 1)))
    assert [list(t["x"]) for t in traces] == [[0, 1], [0, 1], [3, 4, 5], [3, 4, 5], X.tolist()]
    on_log = drawn(Trace("a", X, X, band=(X - 1, X + 1)), ytype="log")
    assert list(on_log[0]["x"]) == [2, 3, 4, 5]  # a logarithmic axis has no room for 0


def test_a_muted_line_is_grey_and_not_in_the_legend() -> None:
    muted, line = drawn(Trace("a", X, X, muted=True), Trace("b", X, X))
    assert muted["line"]["color"] == "rgb(205, 205, 205)"
    assert muted["showlegend"] is False
    assert "showlegend" not in line
    assert line["line"] == {"color": "#da5c11"}


def test_a_band_is_thinned_with_its_line() -> None:
    x = np.arange(1000.0)
    y = np.sin(x)
    window = Window("loss", None, "line", (Trace("a", y, x, band=(y - 1, y + 1)),))
    (trace,) = thin_window(window, 100).traces
    assert len(trace.y) <= 100
    assert trace.band is not None
    np.testing.assert_array_equal(trace.band, (trace.y - 1, trace.y + 1))


def test_windows_of_other_bands_are_not_equal() -> None:
    def window(high: float | None, note: str = "") -> Window:
        band = None if high is None else (X, X + high)
        return Window("loss", None, "line", (Trace("a", X, X, band=band, note=note),))

    assert equal(window(1), window(1))
    for other in (window(2), window(None), window(1, "n=2")):
        assert not equal(window(1), other)
