"""The law: replaying what was recorded gives the windows that live plotting gave, exactly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.events import Add, Event, Log, Reset
from flexrec.replay import Definitions, FlexLogger, Window, define, play, preset
from flexrec.replay.definitions.definitions import X_AXES
from flexrec.replay.engine.engine import Engine
from flexrec.replay.player.player import play_all
from flexrec.replay.plots.window import equal
from flexrec.replay.sinks.base import ListSink
from flexrec.replay.sinks.env_file import EnvFileSink
from support.block_cases import blocks_of

pytestmark = pytest.mark.viewing

NUMBERS = ("train_loss", "test_loss", "lr")
PAIRS = ("train_acc", "test_mse", "train_confusion")
STATISTICS = ("0/grad_in/mean", "0/weights/std", "fc/grad_in/mean")
TEXTS = ("note",)

finite = st.floats(-1e6, 1e6)
any_number = finite | st.sampled_from([float("nan"), float("inf"), -float("inf")])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, Any]:
    """(output, target) of a classification with three classes."""
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    n = draw(st.integers(1, 4))
    return rng.normal(size=(n, 3)).astype("f4"), rng.integers(0, 3, n)


odd_values: st.SearchStrategy[Any] = (
    st.sampled_from(["", "text", "0.5"])
    | st.sampled_from([np.ones(shape) for shape in (0, 1, 3, (0, 2), (2, 3), (2, 0, 2))])
    | st.sampled_from([(1.0, 2.0), (1.0, 0.5), (np.eye(3), np.full(3, -100)), (1.0, "x", 2.0)])
)
"""Values that some meter or plot or other does not take."""


def a_value(key: str) -> st.SearchStrategy[Any]:
    """A value that the meters of a key take."""
    if key in PAIRS:
        if key.endswith("mse"):
            return pairs().map(lambda pair: (pair[0], pair[0] * 2))
        return pairs()
    return st.text(max_size=4) if key in TEXTS else any_number


@st.composite
def runs(draw: st.DrawFn, *, odd: bool = False) -> list[Event]:
    """A run: adds, logs of all or some meters, resets, steps that mostly go up."""
    known = NUMBERS + PAIRS + STATISTICS + TEXTS
    chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=5, unique=True))
    selections = st.none() | st.lists(st.sampled_from(known), max_size=2).map(tuple)
    events: list[Event] = []
    step, time = 0, 1e9
    for _ in range(draw(st.integers(0, 25))):
        step, time = max(0, step + draw(st.integers(-1, 3))), time + draw(st.floats(0, 10))
        kind = draw(st.sampled_from(["add"] * 5 + ["log", "log", "reset"]))
        if kind == "add":
            keys = draw(st.lists(st.sampled_from(chosen), min_size=1, unique=True))
            values = {key: draw(a_value(key)) for key in keys}
            if odd and draw(st.integers(0, 2)) == 0:
                values[draw(st.sampled_from(keys))] = draw(odd_values)
            events.append(Add(values, step, time))
        elif kind == "log":
            x = draw(finite | st.just(float(step)))
            axis = draw(st.sampled_from([None, "epoch"]))
            events.append(Log(x, draw(selections), draw(st.booleans()), step, time, axis))
        else:
            events.append(Reset(draw(selections), step, time))
    return events


CUSTOM = define(
    {
        "lines": {"type": "line", "opts": {"ytype": "log"}},
        "dots": {"type": "scatter"},
        "smooth": {"type": "line", "opts": {"smooth": 0.9}},
        "bars": {"type": "bar"},
        "rows": {"type": "heat"},
        "crowd": {"type": "line", "opts": {"heat_above": 1}},
        "words": {"type": "text"},
        "box": {"type": "boxplot"},
        "{layer}": {"type": "line", "opts": {"title": "of {layer}"}},
    },
    {
        "train_loss": {"type": "AverageValueMeter", "target": ["lines", "bars"]},
        "spread": {
            "key": "*_loss",
            "type": "AverageValueMeter",
            "field": "std",
            "target": ["dots", "rows", "crowd"],
        },
        "moving": {
            "key": "train_loss",
            "type": "MovingAverageValueMeter",
            "args": {"windowsize": 3},
            "target": "lines",
        },
        "best": {
            "key": "test_loss",
            "type": "BestValueMeter",
            "args": {"mode": "min"},
            "target": "bars",
        },
        "lr": {"type": "LastValueMeter", "target": "lines"},
        "clock": {
            "key": "train_loss",
            "type": "TimeMeter",
            "args": {"unit": True},
            "target": "dots",
        },
        "note": {"type": "TextMeter", "target": "words", "reset": False},
        "so far": {
            "key": "*_loss",
            "type": "AverageValueMeter",
            "target": ["smooth", "lines"],
            "reset": False,
        },
        "best so far": {
            "key": "{train}_loss",
            "type": "BestValueMeter",
            "target": "smooth",
            "reset": False,
        },
        "last marks": {
            "key": "lr",
            "type": "MovingAverageValueMeter",
            "args": {"windowsize": 5},
            "target": "smooth",
            "reset": False,
        },
        "*/grad_in/*": {"type": "LastValueMeter", "target": "{layer}", "label": "{source} {stat}"},
    },
)

names = st.sampled_from(
    ["loss", "loss+MSE", "acc+confusion+time", "layers", "sources", "grads+weights", "simple+lr"]
)
definitions: st.SearchStrategy[Definitions] = st.builds(
    Definitions.along, names.map(preset) | st.just(CUSTOM), st.sampled_from(X_AXES)
)
blocks = st.none() | st.integers(1, 5)


def live(events: Sequence[Event], defs: Definitions) -> list[Window]:
    """What live plotting shows."""
    engine = Engine(defs)
    for event in events:
        engine.feed(event)
    return engine.windows()


def record(events: Sequence[Event], path: Path, *, close: bool) -> Recorder:
    """Record the events; unless closed, what is on disk is the live layout."""
    rec = Recorder(path, mode="w", facts=False, flush_seconds=60)
    for event in events:
        rec.record(event)
    rec.flush()
    if close:
        rec.close()
    return rec


def differ(a: Sequence[Window], b: Sequence[Window]) -> str:
    """Why two lists of windows are not the same within 1e-12; empty where they are."""
    if len(a) != len(b):
        return f"{[w.win for w in a]} against {[w.win for w in b]}"
    for v, w in zip(a, b, strict=True):
        if (v.win, v.env, v.type, v.opts) != (w.win, w.env, w.type, w.opts):
            return f"{v} against {w}"
        if [(t.name, t.pale) for t in v.traces] != [(t.name, t.pale) for t in w.traces]:
            return f"traces of {v.win}"
        for s, t in zip(v.traces, w.traces, strict=True):
            if isinstance(s.y, str) or isinstance(t.y, str):
                if s.y != t.y:
                    return f"{s.y!r} against {t.y!r}"
            elif not ((s.x is None and t.x is None) or np.array_equal(s.x, t.x)):
                return f"x of {s.name}: {s.x} against {t.x}"
            elif not np.allclose(s.y, t.y, rtol=1e-12, atol=1e-12 * 1e6, equal_nan=True):
                return f"y of {s.name}: {s.y} against {t.y}"
    return ""


@settings(max_examples=100, deadline=None)
@given(events=runs(), defs=definitions, close=st.booleans(), block=blocks)
def test_replay_of_a_recording_is_what_was_live(
    events: list[Event],
    defs: Definitions,
    close: bool,
    block: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("law") / "run.h5"
    shown = live(events, defs)
    with blocks_of(block):
        rec = record(events, path, close=close)
    with blocks_of(block), Recording(path) as run:
        engine = Engine(defs)
        for event in run.events():
            engine.feed(event)
        replayed = engine.windows()
        assert len(replayed) == len(shown)
        assert all(map(equal, replayed, shown)), differ(replayed, shown)
        if run.marks.is_log.any() and any(map(engine.wants, run.keys())):
            assert all(map(equal, play(run, defs, plain=True), shown))
            quick = play(run, defs)
            assert not differ(quick, shown), differ(quick, shown)
    rec.close()


@settings(max_examples=100, deadline=None)
@given(events=runs(odd=True), defs=definitions, every=st.none() | st.integers(1, 4), block=blocks)
def test_what_is_left_out_is_the_same_quickly_and_plainly(
    events: list[Event],
    defs: Definitions,
    every: int | None,
    block: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("law") / "run.h5"
    record(events, path, close=True)
    with blocks_of(block), Recording(path) as run:
        if not any(any(m.matches(key) for m in defs.meters.values()) for key in run):
            return
        plain = play_all(run, defs, every=every, plain=True)
        quick = play_all(run, defs, every=every)
        assert not differ(quick.windows, plain.windows), differ(quick.windows, plain.windows)
        assert sorted(quick.left_out, key=str) == sorted(plain.left_out, key=str)
        if every is None and run.marks.is_log.any():
            engine = Engine(defs)
            for event in events:
                engine.feed(event)
            shown = engine.windows()
            assert len(shown) == len(plain.windows)
            assert all(map(equal, plain.windows, shown)), differ(plain.windows, shown)
            assert sorted(engine.left_out, key=str) == sorted(plain.left_out, key=str)


@settings(max_examples=60, deadline=None)
@given(events=runs(), defs=definitions, every=st.integers(1, 4), block=blocks)
def test_every_n_steps_is_the_same_quickly_and_plainly(
    events: list[Event],
    defs: Definitions,
    every: int,
    block: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("law") / "run.h5"
    record(events, path, close=True)
    with blocks_of(block), Recording(path) as run:
        if any(any(m.matches(key) for m in defs.meters.values()) for key in run):
            plain = play(run, defs, every=every, plain=True)
            quick = play(run, defs, every=every)
            assert not differ(quick, plain), differ(quick, plain)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.floats(-1e3, 1e3), st.booleans(), st.booleans()), min_size=1, max_size=15
    )
)
def test_a_logger_that_records_shows_what_replay_will_show(
    steps: list[tuple[float, bool, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("law") / "run.h5"
    defs = preset("loss+time")
    with Recorder(path, facts=False) as rec:
        logger = FlexLogger(defs, sink=ListSink(), recorder=rec)
        for value, log, reset in steps:
            logger.add({"train_loss": value, "unplotted": "x"})
            logger.step()
            if log:
                logger.log(reset=reset)
        shown = logger.windows()
    with Recording(path) as run:
        assert run.keys() == ["train_loss", "unplotted"]
        if run.marks.is_log.any():
            assert all(map(equal, play(run, defs, plain=True), shown))
            assert not differ(play(run, defs), shown)


def test_a_file_of_a_live_logger_is_that_of_replay(tmp_path: Path) -> None:
    """To the byte: the title's key, the order of windows and the colours are the same."""
    plots = {
        "mixed": {"type": "line", "opts": {"title": "{key}"}},
        "one": {"type": "line"},
        "two": {"type": "line"},
    }
    meters = {
        "all": {"key": "*", "type": "LastValueMeter", "target": "mixed"},
        "a": {"type": "LastValueMeter", "target": "one"},
        "b": {"type": "LastValueMeter", "target": ["one", "two"]},
    }
    defs = define(plots, meters)
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        live_file = EnvFileSink(tmp_path / "live.json")
        with FlexLogger(defs, sink=live_file, recorder=rec) as logger:
            logger.add(c=np.ones(1))  # no number, which replay draws first
            logger.log(0, "c")
            logger.add(b=2.0)
            logger.log(1, "b")
            logger.add(a=1.0)
            logger.log(2)
    for plain in (False, True):
        replayed = EnvFileSink(tmp_path / f"{plain}.json")
        with Recording(tmp_path / "run.h5") as run:
            replayed.show(play(run, defs, plain=plain))
        replayed.close()
        assert replayed.path.read_bytes() == live_file.path.read_bytes()


def test_several_recordings_overlay_named_by_run(tmp_path: Path) -> None:
    for name, offset in (("a", 0.0), ("b", 10.0)):
        with Recorder(tmp_path / f"{name}.h5", facts=False) as rec:
            for epoch in range(3):
                rec.add(train_loss=epoch + offset, train_confusion=(np.eye(3), np.arange(3)))
                rec.log(epoch)
    with Recording(tmp_path / "a.h5") as a, Recording(tmp_path / "b.h5") as b:
        windows = {w.win: w for w in play([a, b], preset("loss+confusion"))}
    assert list(windows) == ["loss", "a.train_confusion", "b.train_confusion"]
    assert [t.name for t in windows["loss"].traces] == ["a train", "b train"]
    assert windows["loss"].traces[1].y.tolist() == [10, 11, 12]
    assert windows["b.train_confusion"].title == "b: Confusion, train"
