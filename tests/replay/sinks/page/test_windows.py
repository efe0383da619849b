"""What the page's script is told of a window."""

from dataclasses import replace

import numpy as np

from flexrec.replay.plots.smoothing import smoothed
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.sinks.page.windows import shown, side_by_side
from flexrec.replay.sinks.palette import Palette
from support.window_cases import TEST, TRAIN, WINDOWS, window

RUNS = ["a", "b"]


def of_runs(kind: str, *names: str) -> Window:
    x = np.arange(3.0)
    traces = [Trace(f"{run} {name}", x, x, run=run) for run in RUNS for name in names]
    return window(kind, *traces)


def test_traces_name_their_runs() -> None:
    told = shown(of_runs("line", "train", "test"), RUNS)
    assert [trace["run"] for trace in told["data"]] == [0, 0, 1, 1]
    assert told["run"] is None
    named = shown(window("bar", *of_runs("line", "x").traces, legend=["one", "other"]), RUNS)
    assert [trace["run"] for trace in named["data"]] == [0, 1]


def test_traces_say_phase_and_note_apart() -> None:
    noted = [replace(trace, note="n=2, ± std") for trace in of_runs("line", "train").traces]
    told = shown(window("line", *noted), RUNS)["data"]
    assert [trace["name"] for trace in told] == ["a train (n=2, ± std)", "b train (n=2, ± std)"]
    assert [(trace["phase"], trace["note"]) for trace in told] == [("train", "n=2, ± std")] * 2


def test_traces_say_their_phase() -> None:
    names = ("val", "Val", "train step", "test (loss/test)", "0", "_val", "dev", "dev_loss")
    for phase, known in (("dev", ["dev", "dev"]), ("", ["", ""])):
        traces = [Trace(name, TRAIN.y, TRAIN.x, phase=phase) for name in names]
        told = shown(window("line", *traces), ["x"])["data"]
        assert [trace["label"] for trace in told] == list(names)
        assert [trace["phase"] for trace in told] == ["val", "val", "train", "test", "", "", *known]


def test_a_window_of_one_run_names_it() -> None:
    told = shown(window("heatmap", Trace("b matrix", np.eye(2), run="b")), RUNS)
    assert told["run"] == 1
    assert [trace["run"] for trace in told["data"]] == [1]


def test_the_only_run_is_that_of_every_trace() -> None:
    assert [trace["run"] for trace in shown(window("line", TRAIN, TEST), ["x"])["data"]] == [0, 0]
    assert [trace["run"] for trace in shown(window("line", TRAIN), [])["data"]] == [None]


def test_lines_come_unsmoothed_with_the_weight_beside_them() -> None:
    y = np.array([3.0, 1.0, 2.0])
    pairs = [
        Trace(name, values, np.arange(3.0), pale=pale)
        for name in ("train", "test")
        for pale, values in ((True, y), (False, smoothed(y, 0.5)))
    ]
    (painted,) = Palette().paint([window("line", *pairs, smooth=0.5)])
    told = shown(painted, [])
    assert [(trace["name"], trace["y"]) for trace in told["data"]] == [
        ("train", y.tolist()),
        ("test", y.tolist()),
    ]
    assert told["smooth"] == 0.5
    assert len({(line["color"], line["dash"]) for line in (t["line"] for t in told["data"])}) == 2
    assert "opacity" not in told["data"][0]


def test_a_logarithmic_axis_is_left_to_the_page() -> None:
    zero = Trace("t", np.array([1.0, 0.0]), np.arange(2.0))
    told = shown(window("line", zero, ytype="log"), [])
    assert told["log"]
    assert len(told["data"]) == 1  # the marks for zeros, too, are the page's
    assert told["layout"].get("yaxis", {}).get("type") is None
    assert not shown(window("line", zero), [])["log"]


def test_windows_over_marks_are_told_from_others() -> None:
    by_name = {w.win: shown(w, []) for w in WINDOWS}
    moving = {name for name, told in by_name.items() if told.get("marks")}
    assert {"line", "scatter", "stem", "dual_axis_lines", "histograms"} <= moving
    assert not {"bar", "pie", "heatmap", "surf", "boxplot", "histogram/counted"} & moving
    assert {name for name, told in by_name.items() if told.get("smooth") is not None} == {
        w.win for w in WINDOWS if w.type == "line"
    }


def test_margins_are_the_pages_unless_the_user_gave_some() -> None:
    assert "margin" not in shown(window("line", TRAIN), [])["layout"]
    assert shown(window("line", TRAIN, marginleft=5), [])["layout"]["margin"]["l"] == 5


def test_windows_of_one_plot_stand_together() -> None:
    def matrix(run: str) -> Window:
        return window("heatmap", Trace(f"{run} m", np.eye(2), run=run), win=f"{run}.m")

    lines = of_runs("line", "train")
    ordered = side_by_side([matrix("a"), lines, matrix("b")])
    assert [w.win for w in ordered] == ["a.m", "b.m", "line"]


def test_colours_that_are_plotlys_own_are_written_as_those_that_are_not() -> None:
    same, other = Palette().paint([of_runs("line", ""), of_runs("line", "train", "test")])
    own = [trace["line"]["color"] for trace in shown(same, RUNS)["data"]]
    assert own == [trace["line"]["color"] for trace in shown(other, RUNS)["data"][::2]]


def test_a_picture_has_those_of_earlier_marks_as_far_as_they_fit() -> None:
    earlier = tuple((float(k), np.full((4, 4), k / 9)) for k in range(9))
    drawn = window("image", Trace("i", np.ones((4, 4)), earlier=earlier))
    whole = shown(drawn, [])
    assert [frame["x"] for frame in whole["frames"]] == list(range(9))
    assert len({frame["src"] for frame in whole["frames"]} | {whole["src"]}) == 10
    size = sum(len(frame["src"]) for frame in whole["frames"])
    half = shown(drawn, [], pictures_bytes=size / 2)["frames"]
    assert [frame["x"] for frame in half] == [0, 3, 5, 8]
    assert "frames" not in shown(drawn, [], pictures_bytes=10)
