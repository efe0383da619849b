"""FlexLogger: bad input is told at once, and a server that dies never stops training."""

import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import (
    DefinitionError,
    InputError,
    Recorder,
    Recording,
    ServerError,
)
from flexrec.replay import FlexLogger, Window, get_preset_logger
from flexrec.replay.server.server import start_server
from flexrec.replay.sinks.base import ListSink
from flexrec.replay.sinks.resending import ResendingSink
from flexrec.replay.sinks.visdom import VisdomSink


def test_an_unknown_key_names_the_nearest() -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    with pytest.raises(DefinitionError, match="no meter takes 'train_los'; did you mean 'train_"):
        logger.add(train_los=1)
    for call in (logger.log, logger.reset):
        with pytest.raises(DefinitionError, match="no meter 'tset_loss'; did you mean 'test_loss'"):
            call(keys="tset_loss")
    with pytest.raises(DefinitionError, match="no plot or meter 'los'; did you mean 'loss'"):
        logger.update_definition("los", {"type": "bar"})
    assert logger.windows() == []


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (object(), InputError, "'train_mse': cannot record a object"),
        (1j, InputError, "'train_mse': cannot record a complex"),
    ],
)
def test_what_is_no_value_is_refused(value: Any, error: type, message: str) -> None:
    logger = get_preset_logger("loss+MSE", sink=ListSink())
    with pytest.raises(error, match=message):
        logger.add({"train_loss": 1.0, "train_mse": value})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.0, "left out: 'train_mse' at step 0: MSEMeter was given 1.0"),
        ((np.ones(3), "a"), "float64\\[3\\], the text 'a'"),
    ],
)
def test_what_a_meter_cannot_take_is_warned_of_once(value: Any, message: str) -> None:
    logger = get_preset_logger("loss+MSE", sink=ListSink())
    with pytest.warns(RuntimeWarning, match=message) as warned:
        logger.add({"train_mse": value, "train_loss": 1.0})
    logger.add({"train_mse": value, "train_loss": 2.0})  # a warning would be an error
    logger.log(0)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert [w.traces[0].y.tolist() for w in logger.windows()] == [[1.5]]
    assert [(left.key, left.step, left.count) for left in logger.left_out] == [("train_mse", 0, 2)]


def test_bad_x_is_refused() -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    with pytest.raises(InputError, match="x must be a number, got str"):
        logger.log("one")  # type: ignore[arg-type]


@pytest.mark.parametrize("records", [False, True])
def test_values_are_added_at_a_step(tmp_path: Path, records: bool) -> None:
    recorder = Recorder(tmp_path / "run.h5", facts=False) if records else None
    logger = get_preset_logger("loss", sink=ListSink(), recorder=recorder)
    for step in (0, 10, 20):
        logger.add({"train_loss": step}, step=step)
        logger.log()
    assert logger.current_step == 20
    (window,) = logger.windows()
    assert window.traces[0].x.tolist() == [0, 10, 20]
    if recorder is not None:
        recorder.close()
        with Recording(tmp_path / "run.h5") as run:
            assert run["train_loss"].step.tolist() == [0, 10, 20]


def test_x_counts_logs_until_steps_are_counted() -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    for value in (1.0, 2.0):
        logger.add(train_loss=value)
        logger.log()
    logger.step(10)
    logger.add(train_loss=3.0)
    logger.log()
    assert logger.windows()[0].traces[0].x.tolist() == [0, 1, 10]


def test_a_meter_without_new_data_draws_no_point_and_nan_draws_a_gap() -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    logger.add(train_loss=1.0, test_loss=2.0)
    logger.log(0)
    logger.add(train_loss=float("nan"))
    logger.log(1)
    train, test = logger.windows()[0].traces
    assert train.x.tolist() == [0, 1]
    assert np.isnan(train.y[1])
    assert test.x.tolist() == [0]


def test_only_changed_windows_are_sent() -> None:
    sink = ListSink()
    logger = get_preset_logger("loss+MSE", sink=sink)
    logger.add({"train_loss": 1.0, "train_mse": (np.ones(2), np.zeros(2))})
    logger.log(0)
    assert [w.win for w in sink.history] == ["loss", "mse"]
    logger.add(train_loss=2.0)
    logger.log(1, keys="train_loss")
    assert [w.win for w in sink.history[2:]] == ["loss"]


def test_a_plot_that_cannot_draw_its_meter_says_so() -> None:
    logger = FlexLogger(
        {"p": {"type": "heatmap"}},
        {"a": {"type": "LastValueMeter", "target": "p"}},
        sink=ListSink(),
    )
    logger.add(a=1.0)
    with pytest.warns(RuntimeWarning, match="plot 'p': a heatmap takes a matrix"):
        logger.log(0)
    assert logger.windows() == []


class Flaky:
    """A sink that fails on demand."""

    def __init__(self) -> None:
        self.broken = False
        self.shown: list[str] = []

    def show(self, windows: Sequence[Window]) -> None:
        """Take the windows in, or fail."""
        if self.broken:
            raise ServerError("visdom is gone")
        self.shown += [window.win for window in windows]

    def close(self) -> None:
        """Nothing to do."""


def test_windows_go_out_whole_when_the_server_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("flexrec.replay.sinks.resending.time.monotonic", lambda: clock[0])
    flaky = Flaky()
    logger = get_preset_logger("loss+MSE", sink=ResendingSink(lambda: flaky))
    logger.add({"train_loss": 1.0, "train_mse": (np.ones(2), np.zeros(2))})
    logger.log(0)
    flaky.broken = True
    logger.add(train_loss=1.0)
    with pytest.warns(RuntimeWarning, match="visdom is gone; windows are kept in memory"):
        logger.log(1)
    for epoch in (2, 3):  # no second warning, and no second try: it is a second later
        logger.add(train_loss=float(epoch))
        logger.log(epoch)
    flaky.broken, flaky.shown = False, []
    logger.add(train_loss=5.0)
    logger.log(4)
    assert flaky.shown == []
    clock[0] = 10.0
    logger.add(train_loss=6.0)
    logger.log(5)
    assert flaky.shown == ["loss", "mse"], "all windows: the server may have lost everything"


def test_no_server_is_one_warning_and_everything_is_recorded(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Recorder(tmp_path / "run.h5") as rec:
        logger = get_preset_logger("loss", port=port, recorder=rec)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for epoch in range(3):
                logger.add(train_loss=1.0)
                logger.log(epoch)
            logger.close()
        assert len([w for w in caught if "windows are kept" in str(w.message)]) == 1
    with Recording(tmp_path / "run.h5") as run:
        assert run.marks.x.tolist() == [0, 1, 2]


def test_a_real_server_dies_and_comes_back(tmp_path: Path) -> None:
    env = uuid.uuid4().hex
    with start_server(env_path=tmp_path / "a") as server:
        port = server.port
        logger = get_preset_logger("loss", port=port, env=env)
        logger.add(train_loss=1.0)
        logger.log(0)
    logger.add(train_loss=2.0)
    with pytest.warns(RuntimeWarning, match="windows are kept in memory"):
        logger.log(1)
    with start_server(env_path=tmp_path / "b", port=port):
        logger.add(train_loss=3.0)
        logger.log(2)
        logger.close()
        window = VisdomSink(port=port).windows(env)["loss"]
        assert window["content"]["data"][0]["y"] == [1.0, 2.0, 3.0]
