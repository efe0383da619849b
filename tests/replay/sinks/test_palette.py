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
    first, second = Palette().paint([lines("norm", "0", "2"), lines("std", "2")])
    assert "linecolor" not in first.opts, "as visdom colours them"
    assert second.opts["linecolor"] == [list(CYCLE[1])]


def test_names_that_share_a_window_never_share_a_colour() -> None:
    windows = [lines("0", "outputs", "weights"), lines("1", "grad_in", "outputs")]
    *_, last = Palette().paint([*windows, lines("2", "grad_in", "outputs", "weights")])
    assert last.opts["linecolor"] == [list(CYCLE[k]) for k in (2, 0, 1)]


def test_a_run_has_one_colour_and_a_phase_one_dash() -> None:
    loss, acc = Palette().paint([lines("loss", "train_loss", "test_loss"), lines("acc", "test")])
    assert loss.opts["linecolor"] == [list(CYCLE[0])] * 2
    assert loss.opts["dash"] == ["solid", "dash"]
    assert acc.opts["dash"] == ["dash"]
    assert "linecolor" not in acc.opts, "as visdom colours it"


def test_phases_of_ones_own_have_dashes() -> None:
    own = [Trace(phase, [1.0], phase=phase) for phase in ("fit", "dev")]
    (loss,) = Palette().paint([window("line", *own, Trace("dev (x)", [1.0], phase="dev"))])
    assert loss.opts["dash"][:2] == ["dash", "dot"]
    assert loss.opts["linecolor"][0] == loss.opts["linecolor"][1] != loss.opts["linecolor"][2]
    assert loss.opts["dash"][2] == "dot"


def test_mean_and_std_of_a_layer_share_its_colour() -> None:
    both, mean = Palette().paint(
        [lines("g", "0 mean", "2 mean", "0 std", "2 std"), lines("m", "2", "0")]
    )
    assert both.opts["linecolor"] == [list(CYCLE[k]) for k in (0, 1, 0, 1)]
    assert both.opts["dash"] == ["solid", "solid", "dash", "dash"]
    assert mean.opts["linecolor"] == [list(CYCLE[1]), list(CYCLE[0])]


def test_the_std_is_dashed_whichever_phases_there_are() -> None:
    phases, stats, other = Palette().paint(
        [lines("loss", "test", "val"), lines("g", "0 mean", "0 std"), lines("acc", "val")]
    )
    assert phases.opts["dash"] == ["dash", "dot"]
    assert stats.opts["dash"] == ["solid", "dash"]
    assert other.opts["dash"] == ["dot"]


def test_a_fan_has_the_colour_of_its_layer() -> None:
    fan = window("fan", Trace("2", y=np.zeros((7, 1)), x=[0.0]), win="weights/histogram.2")
    _, painted = Palette().paint([lines("norm", "0", "2"), fan])
    assert painted.opts["linecolor"] == [list(CYCLE[1])]


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


def test_layers_of_several_runs_have_shades_of_the_runs_colour() -> None:
    models = {
        "a": [lines("norm", *range(6)), lines("dead", 5), lines("loss", "train", "test")],
        "b": [lines("norm", *range(11)), lines("loss", "train", "test")],
    }
    norm, dead, loss = Palette().paint(overlay(models))
    shades = norm.opts["linecolor"]
    assert len(set(map(tuple, shades))) == 17
    assert (shades[0], shades[6]) == (list(CYCLE[0]), list(CYCLE[1]))
    assert sum(shades[5]) > sum(shades[0]), "the later, the paler"
    assert dead.opts["linecolor"] == [shades[5]]
    assert loss.opts["linecolor"] == [list(CYCLE[k]) for k in (0, 0, 1, 1)]
    assert loss.opts["dash"] == ["solid", "dash", "solid", "dash"]
    assert [trace["line"]["dash"] for trace in payload(loss)["data"]] == loss.opts["dash"]
    asked = Palette().paint([window("line", *loss.traces, dash=["dot"] * 4)])
    assert asked[0].opts["dash"] == ["dot"] * 4


def test_shades_are_spread_over_what_is_beside_each_other() -> None:
    runs = {name: [lines("norm", 0, 2), lines("0", *"pqrstuvwxyz")] for name in "ab"}
    alone = Palette().paint(overlay({name: windows[:1] for name, windows in runs.items()}))
    norm, _ = Palette().paint(overlay(runs))
    assert norm.opts["linecolor"] == alone[0].opts["linecolor"]
    deep, layer = lines("norm", *range(11)), lines("0", *"pqrstuvwxyz")
    both = Palette().paint([deep, layer])
    assert [each.opts["linecolor"] for each in both] == [[ramp(k / 10) for k in range(11)]] * 2
    joined = Palette().paint([deep, layer, lines("all", *range(11), *"pqrstuvwxyz")])
    assert joined[0].opts["linecolor"] == [ramp(k / 21) for k in range(11)]


def test_shades_follow_the_depth_in_each_run() -> None:
    runs = {kind: [lines("norm", "0", f"1 {kind}", "2"), lines("1", kind)] for kind in ("a", "b")}
    norm, alone = Palette().paint(overlay(runs))
    whites = [sum(colour) for colour in norm.opts["linecolor"]]
    assert whites[:3] == sorted(whites[:3])
    assert whites[3:] == sorted(whites[3:])
    assert "linecolor" not in alone.opts, "the runs' own"


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
    assert acc.opts["dash"] == ["dash", "dash"]
    assert "linecolor" not in acc.opts, "visdom's own are these"


def test_pale_values_look_as_their_smoothed_line() -> None:
    def smooth(win: str) -> Window:
        pairs = [(Trace(n, [1.0], pale=True), Trace(n, [1.0])) for n in ("train", "val")]
        return window("line", *(trace for pair in pairs for trace in pair), win=win)

    (one,) = Palette().paint([smooth("loss")])
    assert one.opts["linecolor"] == [list(CYCLE[0])] * 4
    assert one.opts["dash"] == ["solid", "solid", "dash", "dash"]
    (two,) = Palette().paint(overlay({"a": [smooth("loss")], "b": [smooth("loss")]}))
    assert two.opts["dash"] == ["solid", "solid", "dash", "dash"] * 2


def test_a_legend_of_runs_spares_what_the_title_says() -> None:
    def names(*of: str, title: str) -> list[str]:
        drawn = window("line", *(Trace(name, [1.0]) for name in of), win="w", title=title)
        (both,) = overlay({"a": [drawn], "b": [drawn]})
        return [trace.name for trace in both.traces]

    assert names("lr", title="The lr") == ["a", "b"]
    assert names("train", title="Loss") == ["a train", "b train"]
    assert names("loss", title="train_loss") == ["a", "b"]
    assert names("val", title="Value") == ["a val", "b val"], "a word, not letters of one"
    assert names("lr", "x", title="The lr") == ["a lr", "a x", "b lr", "b x"]


def test_runs_side_by_side_keep_marks_and_rows() -> None:
    plane = window("plane", Trace("fc", y=[1.0], x=[2.0], marks=[3.0]))
    matrix = window("histograms", Trace("w", y=np.eye(2), x=[0.0, 1.0], rows=[5.0, 6.0]))
    windows = overlay({"a": [plane, matrix], "b": [plane, matrix]})
    traces = [trace for each in windows for trace in each.traces]
    assert [trace.marks for trace in traces] == [[3.0], None, [3.0], None]
    assert [trace.rows for trace in traces] == [None, [5.0, 6.0], None, [5.0, 6.0]]


def test_lines_of_one_plot_never_look_the_same() -> None:
    (loss,) = Palette().paint([lines("loss", "loss", "train", "test", "train_loss")])
    looks = list(zip(loss.opts["linecolor"], loss.opts["dash"], strict=True))
    assert all(looks.count(look) == 1 for look in looks)
    pale = window("line", Trace("loss", [1.0], pale=True), Trace("loss", [1.0]), Trace("a", [1.0]))
    first, second, other = Palette().paint([pale])[0].opts["linecolor"]
    assert first == second != other
