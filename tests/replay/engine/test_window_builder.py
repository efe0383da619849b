"""Windows from points: crowded plots, and the shared colours of several runs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.recorder import Recorder, Recording
from flexrec.replay import FlexLogger, play
from flexrec.replay.definitions.definitions import define
from flexrec.replay.definitions.presets import preset
from flexrec.replay.engine.left_out import LeftOuts
from flexrec.replay.engine.window_builder import WindowBuilder, classes_of, overlay
from flexrec.replay.plots.window import Trace, Window, equal
from flexrec.replay.sinks.base import ListSink
from flexrec.replay.sinks.visdom import payload
from support.window_cases import window


def built(layers: int, opts: Mapping[str, Any]) -> Window:
    meters = {f"m{k}": {"type": "LastValueMeter", "target": "norm"} for k in range(layers)}
    definitions = define({"norm": {"type": "line", "opts": opts}}, meters)
    board = WindowBuilder(definitions, LeftOuts())
    for k, meter in enumerate(definitions.meters.values()):
        board.point(meter, meter.name, (k, 0), [0.0], [1.0], axes={"epoch"})
    (found,) = board.windows()
    return found


def test_a_crowded_plot_is_drawn_as_heat() -> None:
    opts = {"heat_above": 2, "ytype": "log", "ylabel": "norm", "guide": 1.0}
    few, many = built(2, opts), built(3, opts)
    assert (few.type, few.opts["ytype"]) == ("line", "log")
    assert "heat_above" not in few.opts
    assert many.type == "heat"
    assert dict(many.opts) == {
        "xlabel": "epoch", "ztype": "log", "zlabel": "norm", "title": "Norm"
    }  # fmt: skip
    assert [trace.name for trace in many.traces] == ["m0", "m1", "m2"]
    assert built(30, {}).type == "line"


def test_health_draws_lines_up_to_twelve_layers() -> None:
    plots = preset("health").plots
    assert plots["grad_weights/norm"].opts["heat_above"] == 12
    assert "heat_above" not in plots["loss"].opts


def test_presets_that_share_a_plot_agree_on_it() -> None:
    assert len(preset("health+updates+dead+snr+grads+weights").plots) > 10


def test_matrices_of_several_runs_share_one_scale() -> None:
    a = window("heatmap", Trace("m", y=np.array([[1.0, 2.0]])))
    b = window("heatmap", Trace("m", y=np.array([[-3.0, np.nan]])))
    first, second = overlay({"a": [a], "b": [b]})
    for found in (first, second):
        assert (found.opts["xmin"], found.opts["xmax"]) == (-3.0, 2.0)
    (alone,) = overlay({"a": [a]})
    assert "xmin" not in alone.opts
    asked = overlay({"a": [window("heatmap", *a.traces, xmin=0)], "b": [b]})[0]
    assert (asked.opts["xmin"], asked.opts["xmax"]) == (0, 2.0)


def test_heat_of_several_runs_has_a_window_each_and_one_scale() -> None:
    lines = {
        run: [window("heat", Trace("0", y=[value], x=[0.0]), ztype="log")]
        for run, value in (("a", 1.0), ("b", 1e-3))
    }
    first, second = overlay(lines)
    assert (first.win, second.win) == ("a.heat", "b.heat")
    assert (first.opts["xmin"], second.opts["xmax"]) == (1e-3, 1.0)


def test_fans_of_several_runs_share_a_window() -> None:
    fan = window("fan", Trace("0", y=np.zeros((7, 1)), x=[0.0]))
    (both,) = overlay({"a": [fan], "b": [fan]})
    assert [trace.run for trace in both.traces] == ["a", "b"]


def test_bins_stand_at_their_values() -> None:
    meter = {"key": "w", "type": "HistogramMeter", "args": {"bins": 4, "range": (-2, 2)}}
    definitions = define(
        {kind: {"type": kind} for kind in ("bar", "histogram", "heatmap")},
        {kind: {**meter, "target": kind} for kind in ("bar", "histogram", "heatmap")},
    )
    logger = FlexLogger(definitions, sink=ListSink())
    for values in ([-1.9, 0.1], [1.5, 1.6]):
        logger.add(w=np.array(values))
        logger.log()
    bar, histogram, heatmap = logger.windows()
    assert bar.traces[0].x.tolist() == [-1.5, -0.5, 0.5, 1.5]
    assert bar.traces[0].y.tolist() == [0, 0, 0, 2]
    assert payload(histogram)["data"][0]["y"] == [0, 0, 0, 2], (
        "what is counted is not counted again"
    )
    assert payload(heatmap)["data"][0]["y"] == [-1.5, -0.5, 0.5, 1.5]
    named = replace(heatmap, opts={**heatmap.opts, "rownames": list("abcd")})
    assert payload(named)["data"][0]["y"] == list("abcd")


def test_legends_name_the_class_of_a_layer() -> None:
    assert classes_of(
        {"net": {"0": {"class": "Conv2d"}, "1": {"class": 3}, "2": {}, "a.fc": {"class": "fc"}}}
    ) == {"0": "Conv2d"}
    models = {
        "G": {"0": {"class": "Linear"}, "1": {"class": "ReLU"}},
        "D": {"1": {"class": "Tanh"}},
    }
    assert classes_of(models) == {"0": "Linear"}, "which of both has the name is not known"
    board = WindowBuilder(
        preset("snr+weights+layers"), LeftOuts(), classes={"0": "Conv2d", "2": "Linear"}
    )
    for order, key in enumerate(("0/grad_weights/signal", "0/grad_weights/noise", "1/weights/std")):
        for place, meter in enumerate(board.definitions.meters.values()):
            if meter.matches(key):
                board.point(meter, key, (place, order), [0.0], [1.0])
    shown = {window.win: window for window in board.windows()}
    assert [trace.name for trace in shown["grad_weights/signal"].traces] == [
        "0 Conv2d mean",
        "0 Conv2d std",
    ]
    assert [trace.name for trace in shown["weights/std"].traces] == ["1"]
    assert shown["0"].title == "0 Conv2d"


def test_titles_of_several_runs_name_the_class_that_all_have() -> None:
    def windows(kind: str) -> list[Window]:
        line, fan = Trace("weights mean", y=[1.0], x=[0.0]), Trace(kind, np.zeros((7, 1)), [0.0])
        return [window("line", line, title=kind), window("fan", fan, title=f"outputs: {kind}")]

    line, fan = overlay({"a": windows("1 Tanh"), "b": windows("1 ReLU"), "c": windows("1")})
    assert line.title == "1"
    assert [t.name for t in line.traces] == [
        "a Tanh weights mean",
        "b ReLU weights mean",
        "c weights mean",
    ]
    assert fan.title == "outputs: 1"
    assert [trace.name for trace in fan.traces] == ["a Tanh", "b ReLU", "c"]
    line, fan = overlay({"a": windows("1 Tanh"), "b": windows("1 Tanh")})
    assert (line.title, fan.title) == ("1 Tanh", "outputs: 1 Tanh")
    assert [trace.name for trace in fan.traces] == ["a", "b"]


def test_names_of_several_runs_stay_distinct_where_their_titles_differ() -> None:
    def windows(title: str) -> list[Window]:
        traces = [Trace(name, y=[1.0], x=[0.0]) for name in ("outputs", "1")]
        return [window("line", *traces, title=title)]

    (both,) = overlay({"a": windows("outputs of 1 Tanh"), "b": windows("outputs of 1 ReLU")})
    assert both.title == "outputs of 1"
    names = ["a Tanh outputs", "a Tanh 1", "b ReLU outputs", "b ReLU 1"]
    assert [trace.name for trace in both.traces] == names


def test_a_name_is_left_out_if_the_titles_of_all_runs_say_it() -> None:
    def names(*titles: str, name: str = "loss") -> list[str]:
        line = Trace(name, y=[1.0], x=[0.0])
        runs = {run: [window("line", line, title=t)] for run, t in zip("ab", titles, strict=True)}
        return [trace.name for trace in overlay(runs)[0].traces]

    assert names("Loss", "Error") == names("Error", "Loss") == ["a loss", "b loss"]
    assert names("Loss", "Loss") == ["a", "b"]
    assert names("Loss", "Loss", name="") == ["a", "b"], "no blank behind the run"


def test_a_picture_keeps_a_bounded_history(tmp_path: Path) -> None:
    plots = {"image": {"type": "image"}}
    meters = {"image": {"type": "ImageMeter", "target": "image"}}
    pixels = np.zeros((2, 3))
    with Recorder(tmp_path / "a.h5") as rec:
        logger = FlexLogger(plots, meters, sink=ListSink(), recorder=rec)
        for epoch in range(100):
            pixels[:] = epoch / 100  # a recorded picture does not change with the array
            logger.add(image=pixels)
            logger.log(epoch)
        (live,) = logger.windows()
    (trace,) = live.traces
    assert trace.y[0, 0] == 0.99
    places = [x for x, _ in trace.earlier]
    assert len(places) == 19
    assert places[0] == 0
    assert places[-1] >= 90
    assert max(np.diff(places)) <= 3 * min(np.diff(places[:-1]))
    assert all(y[0, 0] == x / 100 for x, y in trace.earlier)
    with Recording(tmp_path / "a.h5") as run:
        (replayed,) = play(run, define(plots, meters))
        (plain,) = play(run, define(plots, meters), plain=True)
    assert equal(replayed, plain)
    assert [x for x, _ in replayed.traces[0].earlier] == places


def test_two_keys_of_one_name_have_windows_of_their_own(tmp_path: Path) -> None:
    pair = (np.eye(2), np.arange(2))
    with Recorder(tmp_path / "run.h5") as rec:
        rec.add({"train_confusion": pair, "confusion/train": pair, "val_confusion": pair})
        rec.log(0)
    with Recording(tmp_path / "run.h5") as run:
        windows = play(run, preset("confusion"))
    assert len({window.win for window in windows}) == 3
    assert sorted(window.title for window in windows) == [
        "Confusion, train: train (confusion/train)",
        "Confusion, train: train (train_confusion)",
        "Confusion, val",
    ]
