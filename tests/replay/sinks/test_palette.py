"""Colours, dashes and sizes: what stays with a layer, a run or a name."""

import numpy as np

from flexrec.replay.engine.window_builder import overlay
from flexrec.replay.plots.colours import CYCLE, ramp
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.sinks.palette import FEW, Palette
from flexrec.replay.sinks.visdom import payload
from support.window_cases import window


def lines(win: str, *names: object) -> Window:
    return window("line", *(Trace(str(name), y=[1.0, 2.0]) for name in names), win=win)


def test_names_keep_their_colours_from_plot_to_plot() -> None:
    first, second = Palette().paint(
        [lines("loss", "train_loss", "test_loss"), lines("acc", "test_acc")]
    )
    assert "linecolor" not in first.opts, "as visdom colours them"
    assert second.opts["linecolor"] == [list(CYCLE[1])]


def test_a_deep_models_layers_go_along_a_ramp() -> None:
    deep, few = Palette().paint([lines("a", *range(21)), lines("b", 20, 10)])
    assert deep.opts["linecolor"] == [ramp(k / 20) for k in range(21)]
    assert few.opts["linecolor"] == [ramp(1.0), ramp(0.5)]
    assert {"width", "height"} <= set(deep.opts)
    assert "dash" not in deep.opts


def test_a_layer_that_some_plots_lack_has_the_colour_of_its_depth() -> None:
    weighted, every = Palette().paint([lines("norm", *range(0, 42, 2)), lines("std", *range(42))])
    assert weighted.opts["linecolor"] == [ramp(k / 41) for k in range(0, 42, 2)]
    assert every.opts["linecolor"] == [ramp(k / 41) for k in range(42)]


def test_a_layer_of_several_runs_has_the_colour_of_its_depth() -> None:
    models = {"a": [lines("norm", *range(6)), lines("dead", 5)], "b": [lines("norm", *range(11))]}
    norm, dead = Palette().paint(overlay(models))
    assert norm.opts["linecolor"] == [
        *(ramp(k / 5) for k in range(6)),
        *(ramp(k / 10) for k in range(11)),
    ]
    assert norm.opts["dash"] == ["solid"] * 6 + ["dash"] * 11
    assert dead.opts["linecolor"] == [ramp(1.0)]
    drawn = payload(norm)["data"]
    assert [trace["line"]["dash"] for trace in drawn] == norm.opts["dash"]
    assert drawn[0]["line"]["color"] == drawn[6]["line"]["color"]
    asked = Palette().paint([window("line", *norm.traces, dash=["dot"] * 17)])
    assert asked[0].opts["dash"] == ["dot"] * 17


def test_many_runs_of_few_traces_have_a_colour_each() -> None:
    runs = {f"run{k}": [lines("loss", "train_loss")] for k in range(FEW + 1)}
    (loss,) = Palette().paint(overlay(runs))
    assert loss.opts["linecolor"] == [ramp(k / FEW) for k in range(FEW + 1)]
    assert "dash" not in loss.opts


def test_runs_have_a_colour_each_and_phases_a_dash() -> None:
    runs = {name: [lines("loss", "train", "val"), lines("acc", "val")] for name in "ab"}
    loss, acc = Palette().paint(overlay(runs))
    a, b = list(CYCLE[0]), list(CYCLE[1])
    assert loss.opts["linecolor"] == [a, a, b, b]
    assert loss.opts["dash"] == ["solid", "dash", "solid", "dash"]
    assert (acc.opts["linecolor"], acc.opts["dash"]) == ([a, b], ["dash", "dash"])


def test_pale_values_look_as_their_smoothed_line() -> None:
    def smooth(win: str) -> Window:
        pairs = [(Trace(n, [1.0], pale=True), Trace(n, [1.0])) for n in ("train", "val")]
        return window("line", *(trace for pair in pairs for trace in pair), win=win)

    (one,) = Palette().paint([smooth("loss")])
    assert one.opts["linecolor"] == [list(CYCLE[k]) for k in (0, 0, 1, 1)]
    (two,) = Palette().paint(overlay({"a": [smooth("loss")], "b": [smooth("loss")]}))
    assert two.opts["dash"] == ["solid", "solid", "dash", "dash"] * 2


def test_a_legend_of_runs_spares_what_the_title_says() -> None:
    def names(*of: str, title: str) -> list[str]:
        drawn = window("line", *(Trace(name, [1.0]) for name in of), win="w", title=title)
        (both,) = overlay({"a": [drawn], "b": [drawn]})
        return [trace.name for trace in both.traces]

    assert names("lr", title="The lr") == ["a", "b"]
    assert names("train", title="Loss") == ["a train", "b train"]
    assert names("lr", "x", title="The lr") == ["a lr", "a x", "b lr", "b x"]


def test_runs_side_by_side_keep_marks_and_rows() -> None:
    plane = window("plane", Trace("fc", y=[1.0], x=[2.0], marks=[3.0]))
    matrix = window("histograms", Trace("w", y=np.eye(2), x=[0.0, 1.0], rows=[5.0, 6.0]))
    planes, first, _ = overlay({"a": [plane, matrix], "b": [plane, matrix]})
    assert [trace.marks for trace in planes.traces] == [[3.0], [3.0]]
    assert first.traces[0].rows == [5.0, 6.0]
