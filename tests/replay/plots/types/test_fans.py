"""Fans: quantiles of each mark, drawn as plain lines with plotly's fill between neighbours."""

from typing import Any

import numpy as np
import pytest

from flexrec.replay.plots.registry import plot_type
from flexrec.replay.plots.types.fans import QUANTILES
from flexrec.replay.plots.window import Trace
from flexrec.replay.sinks.visdom import payload
from support.window_cases import window

NAN = float("nan")


def fan(name: str, columns: list[Any]) -> Trace:
    history = plot_type("fan").history
    assert history is not None
    (trace,) = history.gather(name, range(len(columns)), columns, {})
    return trace


def drawn(*traces: Trace, **opts: Any) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = payload(window("fan", *traces, **opts))["data"]
    return lines


def test_its_rows_are_the_quantiles_of_finite_values() -> None:
    samples = np.random.default_rng(0).normal(size=101)
    trace = fan("w", [np.append(samples, [NAN, np.inf]), [2.0], [NAN]])
    expected = np.quantile(samples, list(QUANTILES.values()))
    assert trace.y[:, 0].tolist() == expected.tolist()
    assert trace.y[:, 1].tolist() == [2.0] * 7
    assert np.isnan(trace.y[:, 2]).all()


def test_the_bounds_of_a_histogram_give_its_own_quantiles() -> None:
    trace = fan("w", [np.arange(65.0)])
    assert trace.y[:, 0].tolist() == pytest.approx([0, 3.2, 16, 32, 48, 60.8, 64])


def test_a_band_is_two_lines_next_to_each_other() -> None:
    lines = drawn(fan("w", [np.arange(65.0), np.arange(65.0) * 2]), ytype="linear")
    assert [line.get("fill") for line in lines] == [None, "tonexty"] * 3 + [None]
    assert [line["name"] for line in lines] == [
        *("least", "least to greatest", "5 %", "5 to 95 %", "25 %", "25 to 75 %"),
        "median",
    ]
    assert [line["showlegend"] for line in lines[:6]] == [False, True] * 3
    assert lines[0]["y"] == [0, 0]
    assert lines[1]["y"] == [64, 128]
    assert lines[6]["y"] == [32, 64]


def test_no_band_is_filled_across_a_gap() -> None:
    lines = drawn(fan("w", [np.ones(3), np.ones(3), [NAN], np.ones(3)]))
    assert [line["x"] for line in lines[:4]] == [[0, 1], [0, 1], [3], [3]]
    assert [line["mode"] for line in lines[:4]] == ["lines", "lines", "markers", "markers"]
    assert lines[-1]["y"][2] is None
    assert sum(line.get("showlegend") is True for line in lines) == 3, "each band is named once"


def test_many_fans_have_one_band_and_their_own_names() -> None:
    two, three = (
        drawn(*(fan(name, [np.arange(9.0)]) for name in names)) for names in ("ab", "abc")
    )
    assert len(two) == 14
    assert len(three) == 9
    assert [line["name"] for line in three] == [
        f"{name}{part}" for name in "abc" for part in (", 5 %", ", 5 to 95 %", "")
    ]
    assert {line["legendgroup"] for line in three} == set("abc")


def test_values_are_shown_though_logarithms_are_drawn() -> None:
    message = payload(window("fan", fan("w", [np.array([-100.0, -1.0, 1.0, 1e4])])))
    ticks = message["layout"]["yaxis"]
    assert "0" in ticks["ticktext"]
    assert "1000" in ticks["ticktext"]
    assert ticks["tickvals"] == sorted(ticks["tickvals"])
    assert message["data"][-1]["text"] == ["0"]
    plain = payload(window("fan", fan("w", [np.arange(9.0)]), ytype="linear"))
    assert "tickvals" not in plain["layout"].get("yaxis", {})
