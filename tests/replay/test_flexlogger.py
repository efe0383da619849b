"""FlexLogger: bad input is told at once, and a server that dies never stops training."""

import inspect
import json
import math
import re
import warnings
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pytest

from flexrec.recorder import (
    DefinitionError,
    InputError,
    Recorder,
    Recording,
    ServerError,
)
from flexrec.replay import (
    FlexLogger,
    get_preset_logger,
    meter_info,
    meter_types,
    play,
    plot_info,
    plot_types,
    preset,
)
from flexrec.replay.flexlogger import LoggerOptions
from flexrec.replay.plots.window import equal
from flexrec.replay.server.server import start_server
from flexrec.replay.sinks.base import ListSink


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
    with pytest.raises(InputError, match="x must be a number or a date, got bool"):
        logger.log(True)


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


TWO = (
    {"loss": {"type": "line"}, "best": {"type": "line"}, "layers": {"type": "line"}},
    {
        "loss": {"type": "AverageValueMeter", "target": "loss"},
        "best": {
            "type": "BestValueMeter",
            "key": "loss",
            "target": "best",
            "args": {"mode": "min"},
        },
        "*/norm": {"type": "LastValueMeter", "target": "layers"},
    },
)


def test_what_meters_say_can_be_read_before_and_after_a_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = FlexLogger(*TWO, sink=ListSink())
    assert logger.value("loss") is None
    assert logger.values() == {}
    for value in (1.0, 3.0):
        logger.add({"loss": value, "a/norm": value, "b/norm": -value})
    expected = {"loss": 2.0, "best": 1.0, "a/norm": 3.0, "b/norm": -3.0}
    for _ in ("before", "after"):
        assert logger.values() == expected
        assert logger.value("*/norm") == {"a/norm": 3.0, "b/norm": -3.0}
        assert logger.value("b/norm") == -3.0
        logger.log(0)
    logger.add(loss=5.0)
    assert (logger.value("loss"), logger.value("a/norm")) == (5.0, 3.0)
    logger.print_meters("loss", "best")
    assert capsys.readouterr().out == "loss 5  best 5\n"
    logger.print_meters()
    assert capsys.readouterr().out == "loss 5  best 5  a/norm 3  b/norm -3\n"
    with pytest.raises(DefinitionError, match="no meter 'los'; did you mean 'loss'"):
        logger.value("los")


def test_reading_a_meter_changes_nothing() -> None:
    windows = []
    for reads in (False, True):
        logger = get_preset_logger("loss+MSE", sink=ListSink())
        for x in range(3):
            logger.add({"train_loss": x, "train_mse": (np.ones(2) * x, np.zeros(2))})
            if reads:
                logger.values()
            logger.log(x)
        windows.append(logger.windows())
    assert all(map(equal, *windows))


def test_matrices_are_printed_below(capsys: pytest.CaptureFixture[str]) -> None:
    logger = FlexLogger(
        {"m": {"type": "heatmap"}},
        {"m": {"type": "LastValueMeter", "target": "m"}},
        sink=ListSink(),
    )
    logger.add(m=np.eye(2))
    logger.print_meters()
    assert capsys.readouterr().out == "\nm\n[[1. 0.]\n [0. 1.]]\n"


def test_a_point_is_drawn_without_a_meter(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        logger = FlexLogger(*TWO, sink=ListSink(), recorder=rec)
        for x in (1, 2):
            logger.add(loss=9.0)
            logger.log_point("rate", x, 0.1 / x)
            logger.log_point("loss", x, float(x), name="held out")
        rate = {w.win: w for w in logger.windows()}["rate"].traces[0]
        held = {w.win: w for w in logger.windows()}["loss"].traces[0]
        assert (rate.name, rate.x.tolist(), rate.y.tolist()) == ("rate", [1.0, 2.0], [0.1, 0.05])
        assert (held.name, held.x.tolist(), held.y.tolist()) == ("held out", [1, 2], [1, 2])
        assert logger.value("loss") == 9.0, "other meters are left alone"
        with pytest.raises(DefinitionError, match="'loss' is a meter already"):
            logger.log_point("loss", 3, 1.0)


@pytest.mark.parametrize(
    "x",
    [
        datetime(2026, 1, 2, 3, 4, 5),
        datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1))),
        np.datetime64("2026-01-02T03:04:05"),
        np.datetime64("2026-01-02T03:04:05.000000000", "ns"),
    ],
)
def test_dates_are_seconds_since_1970(x: Any) -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    logger.add(train_loss=1.0)
    logger.log(x)
    assert logger.windows()[0].traces[0].x.tolist() == [1767323045.0]


def test_a_day_is_its_beginning() -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    for x in (date(1970, 1, 2), np.datetime64("1970-01-03")):
        logger.add(train_loss=1.0)
        logger.log(x)
    assert logger.windows()[0].traces[0].x.tolist() == [86400.0, 172800.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda logger: logger.add("loss", 1.0), r'write add\(\{"loss": value\}\)'),
        (lambda logger: logger.add({"loss": 1.0}, 3), r'write add\(\{"loss": value\}\)'),
        (lambda logger: logger.log({"loss": 1.0}), "log takes .* no values"),
        (lambda logger: logger.log("loss"), "log takes .* no values"),
        (lambda logger: logger.log(3, 0.5), "log takes .* no values"),
        (lambda logger: logger.log(3, {"train_loss": 0.5}), "log takes .* no values"),
        (lambda logger: logger.step(1.5), "step must be a 64-bit integer"),
    ],
)
def test_calls_in_the_style_of_other_tools_are_told_what_to_write(call: Any, message: str) -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    with pytest.raises(InputError, match=message):
        call(logger)
    assert logger.current_step == 0


def test_a_method_is_not_replaced() -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    with pytest.raises(AttributeError, match=r"step cannot be set; write logger.step\(5\)"):
        logger.step = 5  # type: ignore[method-assign, assignment]
    logger.step()
    assert logger.current_step == 1


@pytest.mark.parametrize("x", [float("nan"), float("inf"), np.datetime64("NaT", "s")])
def test_an_x_that_cannot_be_drawn_is_refused(x: Any) -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    with pytest.raises(InputError, match="x must be a"):
        logger.log(x)


def test_windows_of_one_id_are_warned_of() -> None:
    plots: Any = {
        "heat": {"type": "heatmap"},
        "heat.b": {"type": "heatmap"},
    }
    meters: Any = {
        "a": {"type": "LastValueMeter", "target": "heat"},
        "b": {"type": "LastValueMeter", "target": ["heat", "heat.b"]},
    }
    logger = FlexLogger(plots, meters, sink=ListSink())
    logger.add(a=np.eye(2), b=np.eye(2))
    with pytest.warns(
        RuntimeWarning, match=r"two windows have the id 'heat\.b', 'Heat: b' \(a heat"
    ):
        logger.log(0)


def test_runs_may_share_an_environment(tmp_path: Path) -> None:
    def ids(uid: str | None, recorder: Recorder | None = None) -> list[tuple[str, str]]:
        logger = get_preset_logger("loss", sink=ListSink(), uid=uid, recorder=recorder)
        logger.add({"train_loss": 1.0})
        logger.log(0)
        return [(window.win, window.title) for window in logger.windows()]

    assert ids(None) == ids(None) == [("loss", "Loss")]
    assert ids("lr0.1") == [("lr0.1.loss", "lr0.1: Loss")]
    ((win, title),), ((other, _),) = ids("{run}"), ids("{run}")
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}\.loss", win)
    assert title == f"{win.removesuffix('.loss')}: Loss"
    assert win != other
    with Recorder(tmp_path / "seed3.h5") as recorder:
        assert ids("{run}", recorder) == [("seed3.loss", "seed3: Loss")]


def test_a_definition_that_changes_takes_windows_out_of_a_sink() -> None:
    sink = ListSink()
    logger = get_preset_logger("loss+MSE", sink=sink)
    logger.add({"train_loss": 1.0, "train_mse": (np.ones(2), np.zeros(2))})
    logger.log(0)
    logger.update_definition("mse", {"opts": {"win": "m"}})
    assert [win for _, win in sink.windows] == ["loss", "m"]


def test_options_are_spelled_once() -> None:
    parameters = set(inspect.signature(FlexLogger).parameters) - {"plots", "meters"}
    assert set(LoggerOptions.__annotations__) == parameters
    taken = inspect.signature(get_preset_logger).parameters["options"].annotation
    assert taken == Unpack[LoggerOptions]


def test_a_login_and_a_base_url_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VISDOM_USERNAME", raising=False)
    monkeypatch.delenv("VISDOM_PASSWORD", raising=False)
    login = {"username": "ada", "password": "sesame"}
    with start_server(env_path=tmp_path, base_url="/vis", **login) as server:  # type: ignore[arg-type]
        options: Any = {"port": server.port, "base_url": "vis", "timeout": 20, **login}
        logger = get_preset_logger("loss", env="mine", **options)
        logger.add(train_loss=1.0)
        logger.log(0)
        logger.save()
        saved = json.loads((tmp_path / "mine.json").read_text())
        assert list(saved["jsons"]) == ["loss"]
        logger.close()
        wrong = get_preset_logger("loss", **{**options, "password": "no"})
        wrong.add(train_loss=1.0)
        wrong.log(0)
        with pytest.warns(
            RuntimeWarning, match=r"not be sent.* refuses the password of user 'ada'"
        ):
            wrong.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"server": "ftp://x"}, "not an address such as"),
        ({"port": "8097"}, "port must be a whole number such as 8097, got '8097'"),
        ({"port": 0}, "not an address"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0"),
        ({"server": None}, "address such as http://localhost, got None"),
        ({"env": None}, "an environment is a name such as main, got None"),
        ({"env": ""}, "an environment is a name such as main, got ''"),
    ],
)
def test_what_is_no_address_is_told_at_once(options: Any, told: str) -> None:
    with pytest.raises(ServerError, match=told):
        get_preset_logger("loss", **options)


def test_saving_where_there_are_no_environments_is_refused() -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    with pytest.raises(TypeError, match="a ListSink has no environments to save"):
        logger.save()


def test_a_logger_says_what_it_is() -> None:
    assert repr(get_preset_logger("loss+MSE", sink=ListSink())) == (
        "<FlexLogger of loss, mse in a ListSink>"
    )
    assert "in http://localhost:8097/env/e>" in repr(get_preset_logger("loss", env="e"))


def test_the_types_tell_of_one() -> None:
    assert plot_types("line") == plot_info("line")
    assert meter_types("AverageValueMeter") == meter_info("AverageValueMeter")


class Interrupted(list[float]):
    """Values at whose reading a Ctrl-C comes up."""

    def __iter__(self) -> Any:
        raise KeyboardInterrupt


def test_an_interrupt_between_a_position_and_its_value_shifts_nothing() -> None:
    logger = get_preset_logger("loss", sink=ListSink())
    board = logger._engine.board
    meter = logger._engine.definitions.meters["train_loss"]
    for x in (0.0, 1.0, 2.0):
        with suppress(KeyboardInterrupt):
            board.point(meter, "train_loss", (0, 0), [x - 0.5], Interrupted([9.0]))
        assert len(logger.windows()) == (x > 0)
        board.point(meter, "train_loss", (0, 0), [x], [-x])
    (trace,) = logger.windows()[0].traces
    assert (trace.x.tolist(), trace.y.tolist()) == ([0.0, 1.0, 2.0], [0.0, -1.0, -2.0])


NAN = {"nan": {"key": "*loss", "is": "nan"}}


def test_an_alarm_is_a_warning_by_default_and_training_goes_on() -> None:
    logger = FlexLogger({}, alarms=NAN)  # no plots: no visdom
    logger.add(train_loss=1.0, step=1)
    with pytest.warns(RuntimeWarning, match=r"^alarm nan: 'train_loss' at step 2: nan$") as warned:
        logger.add(train_loss=math.nan, step=2)
    assert warned[0].filename == __file__
    with pytest.raises(DefinitionError, match="no meter takes 'los'"):
        logger.add(los=1.0)
    logger.log(1)
    logger.close()


def test_a_callable_gets_alarms_and_its_failure_is_a_warning() -> None:
    heard = list[Any]()
    logger = get_preset_logger("loss", sink=ListSink(), alarms=NAN, on_alarm=heard.append)
    logger.add(train_loss=math.nan, step=3)
    assert [(alarm.name, alarm.key, alarm.step) for alarm in heard] == [("nan", "train_loss", 3)]

    def fail(alarm: Any) -> None:
        raise OSError("no mail")

    logger = get_preset_logger("loss", sink=ListSink(), alarms=NAN, on_alarm=fail)
    with pytest.warns(RuntimeWarning, match="alarm nan: .*; on_alarm failed: OSError: no mail"):
        logger.add(train_loss=math.nan)
    logger.log(0)
    assert [window.win for window in logger.windows()] == ["loss"]


def test_alarms_are_printed_where_warnings_are_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(alarm: Any) -> None:
        raise OSError("no mail")

    for on_alarm in (None, fail):
        logger = get_preset_logger("loss", sink=ListSink(), alarms=NAN, on_alarm=on_alarm)
        logger.add(train_loss=math.nan, step=3)  # a warning is an error here
        assert "flexrec: alarm nan: 'train_loss' at step 3: nan" in capsys.readouterr().err
    above = {"high": {"key": "train_loss", "above": 1.0}}
    logger = FlexLogger({}, alarms=above)
    logger.add(train_loss="text")
    assert "flexrec: left out" in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr", None)
    logger.add(train_loss=2.0)


def test_alarms_are_copied_with_their_logger() -> None:
    heard = list[Any]()
    logger = FlexLogger({}, alarms=NAN, on_alarm=heard.append)
    kind, args = logger.__reduce__()
    kind(*args).add(test_loss=math.nan)
    assert [alarm.key for alarm in heard] == ["test_loss"]


def test_layers_are_named_live_as_in_a_replay(tmp_path: Path) -> None:
    """Whichever models are described, together or one after another."""
    models = [
        {"G": {"0": {"class": "Linear"}, "1": {"class": "ReLU"}}},
        {"D": {"1": {"class": "Tanh"}}},
        {"G": {"0": {"class": "Conv2d"}}},
    ]
    expected = [["0 Linear", "1 ReLU"], ["0 Linear", "1"], ["0 Conv2d", "1 Tanh"]]
    for count, names in enumerate(expected, 1):
        path = tmp_path / f"{count}.h5"
        with Recorder(path, facts=False) as rec:
            logger = get_preset_logger("weights", sink=ListSink(), recorder=rec)
            for each in models[:count]:
                logger.describe(each)
            logger.add({"0/weights/mean": 1.0, "1/weights/mean": 2.0})
            logger.log(epoch=0)
        with Recording(path) as run:
            (replayed,) = play(run, preset("weights"))
        (live,) = logger.windows()
        assert [trace.name for trace in live.traces] == names
        assert equal(live, replayed)
