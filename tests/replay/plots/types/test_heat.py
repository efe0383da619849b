"""Heat: the lines of many layers as rows of colours."""

from typing import Any

import numpy as np

from flexrec.replay.plots.window import Trace
from flexrec.replay.sinks.visdom import payload
from support.window_cases import window

NAN, INF = float("nan"), float("inf")


def drawn(*traces: Trace, **opts: Any) -> dict[str, Any]:
    message: dict[str, Any] = payload(window("heat", *traces, **opts))
    return message


def cells(message: dict[str, Any]) -> Any:
    return message["data"][-1]


def test_rows_are_aligned_at_all_marks() -> None:
    a = Trace("a", y=[1.0, 2.0], x=[0.0, 2.0])
    b = Trace("b", y=[3.0, INF, NAN], x=[1.0, 2.0, 3.0])
    message = drawn(a, b)
    assert cells(message)["x"] == [0, 1, 2, 3]
    assert cells(message)["z"] == [[1, None, 2, None], [None, 3, None, None]]
    assert (cells(message)["zmin"], cells(message)["zmax"]) == (1, 3)
    axis = message["layout"]["yaxis"]
    assert (axis["ticktext"], axis["autorange"]) == (["a", "b"], "reversed")


def test_layers_of_one_name_keep_their_rows() -> None:
    twin = Trace("fc", y=[1.0], x=[0.0])
    assert len(cells(drawn(twin, twin))["z"]) == 2


def test_logarithmic_colours_show_zero_as_the_least() -> None:
    message = drawn(Trace("a", y=[1.0, 0.0, 1e-4], x=[0.0, 1.0, 2.0]), ztype="log")
    assert cells(message)["z"] == [[0, -4, -4]]
    assert cells(message)["colorbar"]["ticktext"] == ["10⁻⁴", "10⁻³", "10⁻²", "10⁻¹", "10⁰"]
    assert cells(message)["text"] == [["a: 1", "a: 0", "a: 0.0001"]]


def test_one_value_everywhere_has_a_scale() -> None:
    for value, log, expected in ((0.0, None, (0, 1)), (2.0, None, (0, 2)), (10.0, "log", (0, 1))):
        found = cells(drawn(Trace("a", y=[value] * 2, x=[0.0, 1.0]), ztype=log))
        assert (found["zmin"], found["zmax"]) == expected


def test_smoothed_lines_are_rows_without_their_originals() -> None:
    pale, smooth = Trace("a", y=[1.0], x=[0.0], pale=True), Trace("a", y=[2.0], x=[0.0])
    assert cells(drawn(pale, smooth))["z"] == [[2]]


def test_few_of_many_rows_are_named() -> None:
    many = (Trace(f"layer {k}", y=np.ones(2), x=np.arange(2.0)) for k in range(100))
    message = drawn(*many, title="Layers")
    assert len(message["layout"]["yaxis"]["ticktext"]) == 25
    assert len(cells(message)["z"]) == 100


def test_rows_do_not_repeat_the_run_that_the_title_names() -> None:
    traces = [Trace(str(k), [1.0, 2.0], [0.0, 1.0], run="a") for k in range(2)]
    for title, names in (("a: norm", ["0", "1"]), ("norm", ["a 0", "a 1"])):
        assert drawn(*traces, title=title)["layout"]["yaxis"]["ticktext"] == names
