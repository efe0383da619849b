"""The lines that people know from TNT's visdom loggers, run as they were written."""

import uuid
from pathlib import Path

import pytest

from flexrec.recorder import Recorder, Recording, TooledModel
from flexrec.replay import (
    FlexLogger,
    TooledModelLogger,
    get_preset_logger,
    meter_info,
    meter_types,
    plot_info,
    plot_types,
    preset_info,
    preset_names,
)
from flexrec.replay.meters import AverageValueMeter
from flexrec.replay.server.server import Server
from flexrec.replay.sinks.base import ListSink
from flexrec.replay.sinks.visdom import VisdomSink

pytest.importorskip("torch")
import torch


@pytest.fixture
def env() -> str:
    """An environment of the server's that no other test uses."""
    return f"env{uuid.uuid4().hex}"


def test_a_preset_says_what_it_defines() -> None:
    logger = get_preset_logger("loss+MSE", sink=ListSink())
    assert logger.get_definitions() == {
        "loss": ["train_loss", "test_loss"],
        "mse": ["train_mse", "test_mse"],
    }
    assert get_preset_logger("LOSS+mse", sink=ListSink()).get_definitions() == (
        logger.get_definitions()
    )


def test_five_fake_epochs_give_two_windows(visdom_server: Server, env: str) -> None:
    logger = get_preset_logger("loss+MSE", port=visdom_server.port, env=env)
    for epoch in range(5):
        logger.add({"train_loss": 1.0 / (epoch + 1), "test_loss": torch.tensor(2.0)})
        logger.add({"train_mse": [torch.randn([4, 20]), torch.randn([4, 20])]})
        logger.add({"test_mse": [torch.ones([4, 20]), torch.zeros([4, 20])]})
        logger.log(epoch)
    logger.close()
    windows = VisdomSink(port=visdom_server.port, env=env).windows(env)
    assert sorted(window["title"] for window in windows.values()) == ["Loss", "MSE"]
    for window in windows.values():
        traces = window["content"]["data"]
        assert [trace["name"] for trace in traces] == ["train", "test"]
        assert all(trace["x"] == [0, 1, 2, 3, 4] for trace in traces)
    loss, mse = (windows[name]["content"]["data"] for name in ("loss", "mse"))
    assert loss[0]["y"] == [1.0 / (epoch + 1) for epoch in range(5)]
    assert loss[1]["y"] == [2.0] * 5
    assert mse[1]["y"] == [1.0] * 5


def test_log_resets_unless_told_not_to_and_reset_empties() -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    logger.add(train_loss=1.0)
    logger.log(0)
    logger.add(train_loss=3.0)
    logger.log(1, reset=False)
    logger.add(train_loss=5.0)
    logger.log(2)
    logger.add(train_loss=100.0)
    logger.reset()
    logger.add(train_loss=7.0)
    logger.log(3)
    (window,) = logger.windows()
    assert window.traces[0].y.tolist() == [1.0, 3.0, 4.0, 7.0]


def test_plots_meters_env_and_uid(visdom_server: Server, env: str) -> None:
    other = f"{env}_2"
    logger = FlexLogger(
        {"loss": {"type": "line"}, "images": {"type": "image", "opts": {"env": other}}},
        {
            "train_loss": {"type": "AverageValueMeter", "target": "loss"},
            "sample": {"type": "ImageMeter", "target": "images"},
        },
        env=env,
        uid="my_uid",
        port=visdom_server.port,
    )
    logger.add(train_loss=1.0, sample=torch.rand(3, 8, 8))
    logger.log(0)
    logger.close()
    sink = VisdomSink(port=visdom_server.port)
    assert list(sink.windows(env)) == ["my_uid.loss"]
    assert list(sink.windows(other)) == ["my_uid.images"]


def net() -> "torch.nn.Module":
    """A small network."""
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))


def test_a_tooled_model_shows_a_table() -> None:
    model = net()
    tooled = TooledModel(model)
    model(torch.randn(5, 4)).sum().backward()
    table = tooled.table()
    lines = str(table).splitlines()
    assert repr(table) == str(table)
    assert lines[1].replace("|", " ").split() == ["Grad_in", "Grad_out", "Inputs", "Weights"]
    assert lines[2].split() == ["|", "Layers", "|"] + ["mean", "std", "|"] * 4
    assert [line.split()[1] for line in lines[4:-1]] == ["0", "1", "2"]
    tooled.remove()


@pytest.mark.parametrize(
    ("mode", "charts", "lines"),
    [
        ("by_layer", ["0 Linear", "1 ReLU", "2 Linear"], "weights mean"),
        ("by_source", ["grad_in mean", "weights std"], "2 Linear"),
    ],
)
def test_a_tooled_model_logger_charts_each_layer_or_source(
    mode: str, charts: list[str], lines: str
) -> None:
    sink = ListSink()
    model = net()
    logger = TooledModelLogger(model, mode=mode, sink=sink)
    for _ in range(3):
        model.zero_grad()
        model(torch.randn(5, 4)).sum().backward()
        logger.step(log=True)
    logger.close()
    titles = {window.title: window for window in sink.windows.values()}
    assert set(charts) <= set(titles)
    traces = {trace.name: trace for trace in titles[charts[0]].traces}
    assert traces[lines].x.tolist() == [0, 1, 2]
    assert logger.tooled.is_removed


def test_what_there_is_can_be_asked_in_any_letter_case() -> None:
    assert {"AverageValueMeter", "ConfusionMeter", "TimeMeter"} <= set(meter_types())
    assert {"line", "heatmap", "image"} <= set(plot_types())
    assert {"loss", "MSE", "simple", "layers", "sources"} <= set(preset_names())
    assert "k" in meter_info("confusionmeter")
    assert plot_info("LINE") == plot_info("line")
    assert "train" not in preset_info("loss+Acc")
    assert "{phase}_acc: ClassErrorMeter" in preset_info("loss+Acc")


def test_plots_and_meters_are_added_on_the_fly() -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    logger.add(train_loss=1.0)
    logger.log(0)
    logger.add_plot("worst", {"type": "line", "opts": {"title": "Worst"}})
    logger.add_meter(
        "worst_loss",
        {"key": "train_loss", "type": "BestValueMeter", "args": {"mode": "max"}, "target": "worst"},
    )
    logger.add(train_loss=2.0)
    logger.add(train_loss=4.0)
    logger.log(1)
    logger.update_definition("loss", {"opts": {"title": "Mean loss"}})
    logger.update_definition("train_loss", {"target": ["loss", "worst"]})
    logger.add(train_loss=6.0)
    logger.log(2)
    loss, worst = logger.windows()
    assert (loss.title, worst.title) == ("Mean loss", "Worst")
    assert loss.traces[0].y.tolist() == [1.0, 3.0, 6.0]
    assert {t.name: t.y.tolist() for t in worst.traces} == {
        "worst_loss": [4.0, 6.0],
        "train": [6.0],
    }


def test_a_class_instead_of_a_string() -> None:
    class Largest(AverageValueMeter):
        def value(self) -> tuple[float, float]:
            return 42.0, 0.0

    logger = FlexLogger(
        {"p": {"type": "line"}}, {"m": {"type": Largest, "target": "p"}}, sink=ListSink()
    )
    logger.add(m=1)
    logger.log(0)
    logger.add_plot("q", {"type": "bar"})
    logger.add(m=1)
    logger.log(1)
    assert logger.windows()[0].traces[0].y.tolist() == [42.0, 42.0]


def test_a_watched_model_is_recorded_at_every_step(tmp_path: Path) -> None:
    model = net()
    with Recorder(tmp_path / "run.h5") as rec:
        tooled = rec.watch(model, sources=("grad_out", "weights"), stats=("mean", torch.max))
        for _ in range(4):
            model(torch.randn(5, 4)).sum().backward()
            rec.step()
        weights = float(model[0].weight.detach().max())
        assert tooled.stats()["0"]["weights"]["max"] == pytest.approx(weights)
    assert tooled.is_removed, "close ends the watch"
    with Recording(tmp_path / "run.h5") as run:
        assert {"0/grad_out/mean", "0/weights/max", "2/grad_out/max"} <= set(run.keys())
        assert run["0/weights/max"].step.tolist() == [0, 1, 2, 3]


def test_a_log_begins_the_window_of_the_gradients_signal_anew(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 1, bias=False))
    with Recorder(tmp_path / "run.h5") as rec:
        rec.watch(model, stats=("noise",), layers="0")
        for _ in range(2):
            for _ in range(3):
                model.zero_grad()
                model(torch.randn(5, 4)).sum().backward()
                rec.step()
            rec.log()
    with Recording(tmp_path / "run.h5") as run:
        noise = run["0/grad_weights/noise"].value
    assert noise[0] == 0, "one minibatch has no spread"
    assert noise[3] == 0, "nor has the first after the log"
    assert (noise[[1, 2, 4, 5]] > 0).all()
