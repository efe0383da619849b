"""The options of a watched model: spelled by TooledModel, taken by all who hand them on."""

import ast
import inspect
from pathlib import Path

import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.replay import TooledModelLogger, play, preset, preset_info, preset_names
from flexrec.replay.plots.window import equal
from flexrec.replay.sinks.base import ListSink

torch = pytest.importorskip("torch")

from flexrec.recorder.layers.tooled_model import ModelOptions, TooledModel  # noqa: E402 - needs torch


def test_what_is_handed_on_is_what_a_tooled_model_takes() -> None:
    parameters = set(inspect.signature(TooledModel).parameters) - {"model"}
    assert set(ModelOptions.__annotations__) == parameters
    taken = inspect.signature(Recorder.watch).parameters["options"].annotation
    assert taken == "Unpack[ModelOptions]"
    taken = inspect.signature(TooledModelLogger).parameters["options"].annotation
    assert taken == "Unpack[TooledModelLoggerOptions]"


def test_a_logger_takes_a_scaler_and_a_name() -> None:
    model = torch.nn.Linear(3, 1, bias=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    sink = ListSink()
    logger = TooledModelLogger(
        model, "by_source", sources=("grad_out",), scaler=scaler, name="critic", sink=sink
    )
    scaler.scale(model(torch.ones(2, 3)).sum()).backward()
    logger.step(log=True)
    logger.close()
    (window,) = (window for window in sink.windows.values() if "mean" in window.title)
    (trace,) = window.traces
    assert (trace.name, trace.y.tolist()) == ("critic.Linear", [1.0])


def test_watch_takes_them_all(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 1)
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.watch(
            model, sources=["weights"], stats=["norm"], layers=None, every=2, scaler=None, name="m"
        )
        for _ in range(4):
            model(torch.ones(2, 3)).sum().backward()
            rec.step()
    with Recording(tmp_path / "run.h5") as run:
        (key,) = run
        assert key == "m.Linear/weights/norm"
        assert run[key].step.tolist() == [0, 2]


def test_an_option_that_there_is_not_is_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 1)
    with (
        Recorder(tmp_path / "run.h5", facts=False) as rec,
        pytest.raises(TypeError, match="unexpected keyword argument 'layer'"),
    ):
        rec.watch(model, layer="fc")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'layer'"):
        TooledModelLogger(model, layer="fc", sink=ListSink())  # type: ignore[call-arg]


def test_what_presets_say_to_record_are_options_that_there_are() -> None:
    lines = [line for name in preset_names() for line in preset_info(name).splitlines()]
    hints = [line.partition("rec.watch")[2] for line in lines if "rec.watch(" in line]
    assert len(hints) >= 7
    for hint in hints:
        call = ast.parse("watch" + hint[: hint.rindex(")") + 1], mode="eval").body
        assert isinstance(call, ast.Call)
        options = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
        TooledModel(torch.nn.Sequential(torch.nn.Linear(2, 2)), **options).remove()


def test_classes_are_named_live_as_at_replay(tmp_path: Path) -> None:
    model, path = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), tmp_path / "run.h5"
    rec = Recorder(path, facts=False)
    logger = TooledModelLogger(model, "by_source", sink=ListSink(), recorder=rec)
    for _ in range(2):
        model(torch.randn(5, 3)).sum().backward()
        logger.step(log=True)
    live = logger.logger.windows()
    logger.close()
    rec.close()
    with Recording(path) as run:
        assert run.models["Sequential"]["0"]["class"] == "Linear"
        replayed = play(run, preset("sources"))
    assert all(map(equal, live, replayed))
    names = {trace.name for window in live for trace in window.traces}
    assert names == {"0 Linear", "1 ReLU"}
