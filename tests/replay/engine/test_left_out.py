"""What a meter or a plot cannot take is left out and named; everything else is drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.recorder import DefinitionError, InputError, MeterError, Recorder, Recording
from flexrec.recorder.events import Add, Event, Log
from flexrec.replay import Definitions, define, play
from flexrec.replay.engine.engine import Engine
from flexrec.replay.engine.left_out import LeftOut, LeftOuts
from flexrec.replay.meters import AverageValueMeter, Meter
from flexrec.replay.player.player import count_unlogged, play_all
from flexrec.replay.plots.window import Window, equal

pytestmark = pytest.mark.viewing


class Fails(AverageValueMeter):
    """Fails at a call of one of its methods: `where`, the `at`th call."""

    def __init__(self, where: str, at: int = 1) -> None:
        super().__init__()
        self._where, self._at, self._calls = where, at, dict.fromkeys(("add", "value", "reset"), 0)

    def _call(self, name: str) -> None:
        calls = getattr(self, "_calls", None)
        if calls is not None:
            calls[name] += 1
            if name == self._where and calls[name] == self._at:
                raise ZeroDivisionError(f"{name} fails")

    def add(self, value: Any, n: float = 1) -> None:
        """As that of an average, or fail."""
        self._call("add")
        super().add(value, n)

    def value(self) -> Any:
        """As that of an average, or fail."""
        self._call("value")
        return super().value()

    def reset(self) -> None:
        """As that of an average, or fail."""
        super().reset()
        self._call("reset")

    def add_all(self, values: Any) -> None:
        """One by one, so that a failure has a place."""
        Meter.add_all(self, values)

    def reduce_slices(self, values: Any, starts: Any, stops: Any) -> None:
        """Not at once."""


def one(kind: Any, plot: str = "line", **table: Any) -> Definitions:
    """The key `odd` in a plot, between two keys that nothing is wrong with."""
    average = {"type": "AverageValueMeter"}
    return define(
        {"a": {"type": "line"}, "p": {"type": plot}, "z": {"type": "line"}},
        {
            "first": {**average, "target": "a"},
            "odd": {"type": kind, "target": "p", **table},
            "last": {**average, "target": "z"},
        },
    )


def epochs(*values: Any) -> list[Event]:
    """Three values an epoch, of which that of `odd` is one of these."""
    events: list[Event] = []
    for i, value in enumerate(values):
        events.append(Add({"first": float(i), "odd": value, "last": 2.0 * i}, i, float(i)))
        events.append(Log(10.0 * i, None, True, i, float(i)))
    return events


def every_way(
    events: Sequence[Event], definitions: Definitions, path: Path
) -> tuple[list[Window], list[LeftOut]]:
    """Live, replayed and replayed quickly: all of which must agree."""
    engine = Engine(definitions)
    for event in events:
        engine.feed(event)
    shown, left = engine.windows(), list(engine.left_out)
    with Recorder(path, facts=False) as rec:
        for event in events:
            rec.record(event)
    with Recording(path) as run:
        for plain in (True, False):
            played = play_all(run, definitions, plain=plain)
            assert len(played.windows) == len(shown)
            assert all(map(equal, played.windows, shown))
            assert sorted(played.left_out, key=str) == sorted(left, key=str)
        with pytest.raises((MeterError, DefinitionError)) as raised:
            play(run, definitions, strict=True)
        assert str(raised.value).split(" (and")[0] in {str(each).split(" (and")[0] for each in left}
    return shown, left


LAST = one("LastValueMeter")
CASES: dict[str, tuple[Definitions, Sequence[Any], list[float] | None, dict[str, Any]]] = {
    "a text among numbers": (LAST, [1.0, "x", 3.0], [1.0, 3.0], {"step": 1}),
    "a text first": (LAST, ["x", 2.0, 3.0], [2.0, 3.0], {"step": 0}),
    "a text at the end": (LAST, [1.0, 2.0, "x"], [1.0, 2.0], {"step": 2}),
    "texts": (LAST, ["x", "y", 3.0], [3.0], {"step": 0, "count": 2}),
    "an array among numbers": (LAST, [1.0, np.ones(3), 3.0], [1.0, 3.0], {"x": 10.0}),
    "an array first": (LAST, [np.ones(3), 2.0, 3.0], [2.0, 3.0], {"x": 0.0}),
    "an empty array": (LAST, [1.0, np.ones(0), 3.0], [1.0, 3.0], {"x": 10.0}),
    "an empty array alone": (LAST, [np.ones(0)], None, {"x": 0.0}),
    "a matrix alone": (LAST, [np.ones((2, 2))], None, {"x": 0.0}),
    "too many arguments": (LAST, [1.0, (2.0, 3.0), 3.0], [1.0, 3.0], {"step": 1}),
    "a target of -100": (
        one("ClassErrorMeter", args={"topk": [1]}),
        [(np.eye(3), np.arange(3)), (np.eye(3)[:, 0], np.arange(3)), (np.eye(3), np.arange(3))],
        [0.0, 0.0],
        {"step": 1},
    ),
    "an add that fails": (one(Fails, args={"where": "add", "at": 2}), [1.0, 2.0, 3.0],
                          [1.0, 3.0], {"step": 1}),
    "a value that fails": (one(Fails, args={"where": "value", "at": 2}), [1.0, 2.0, 3.0],
                           [1.0, 3.0], {"x": 10.0}),
    "a reset that fails": (one(Fails, args={"where": "reset", "at": 2}), [1.0, 2.0, 3.0],
                           [1.0, 2.0, 3.0], {}),
    "a number in a heatmap": (one("LastValueMeter", "heatmap"), [1.0, 2.0], None,
                              {"x": 0.0, "count": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_odd_value_leaves_the_rest(name: str, tmp_path: Path) -> None:
    definitions, values, drawn, where = CASES[name]
    windows, (left,) = every_way(epochs(*values), definitions, tmp_path / "run.h5")
    shown = {window.win: window.traces[0].y for window in windows}
    assert shown["a"].tolist() == [float(i) for i in range(len(values))]
    assert shown["z"].tolist() == [2.0 * i for i in range(len(values))]
    assert (shown["p"].tolist() if "p" in shown else None) == drawn
    assert (left.key, left.meter) == ("odd", "odd")
    for field in ("step", "x", "count"):
        assert getattr(left, field) == where.get(field, 1 if field == "count" else None), field


SURFACE = {"target": "p", "type": "LastValueMeter"}


@pytest.mark.parametrize(
    ("plot", "good", "bad"),
    [
        ("heatmap", np.eye(3), "no matrix"),
        ("heatmap", np.arange(3.0), np.arange(4.0)),
        ("contour", np.eye(3), np.ones((1, 3))),
        ("surf", np.eye(3), np.ones((3, 0))),
        ("image", np.ones((3, 8, 8)), np.ones((2, 8, 8))),
        ("image", np.ones((8, 8)), np.ones((0, 8))),
        ("images", np.ones((2, 3, 8, 8)), np.ones((2, 2, 8, 8))),
        ("pie", np.ones(3), np.array([1.0, -1.0])),
        ("pie", np.ones(3), np.ones(0)),
        ("bar", np.ones(3), np.ones((2, 2))),
        ("histogram", np.ones(3), 1.0),
        ("boxplot", np.ones(3), 1.0),
        ("plane", np.ones(2), np.ones(3)),
        ("histograms", np.ones(5), np.ones((2, 2))),
    ],
)
def test_an_odd_value_of_any_plot_type(plot: str, good: Any, bad: Any, tmp_path: Path) -> None:
    """What is drawn is what would be without it, and visdom's client can draw it."""
    from flexrec.replay.sinks.visdom import payload

    definitions = one("LastValueMeter", plot)
    windows, (left,) = every_way(epochs(good, bad, good, bad), definitions, tmp_path / "run.h5")
    assert left.count == 2
    assert [window.win for window in windows] == ["a", "p", "z"]
    assert payload(windows[1])["data"]
    engine = Engine(definitions)
    for event in epochs(good, bad, good, bad):
        if isinstance(event, Add) and event.step % 2:
            event = Add({"first": 1.0, "last": 2.0}, event.step, event.time)
        engine.feed(event)
    assert equal(engine.windows()[1], windows[1])


def test_traces_that_a_plot_has_no_room_for(tmp_path: Path) -> None:
    tables = one("LastValueMeter", "dual_axis_lines").tables()
    tables["meters"]["first"]["target"] = tables["meters"]["last"]["target"] = "p"
    del tables["plots"]["a"], tables["plots"]["z"]
    definitions = define(tables["plots"], tables["meters"])
    ((window,), (left,)) = every_way(epochs(1.0, 2.0), definitions, tmp_path / "a.h5")
    assert [trace.name for trace in window.traces] == ["first", "odd"]
    assert (left.key, left.x, left.count) == ("last", 0.0, 2)
    assert "draws 1 to 2 traces" in left.why
    ((window,), (left,)) = every_way(epochs(np.ones(3)), definitions, tmp_path / "b.h5")
    assert [trace.name for trace in window.traces] == ["first", "last"]
    assert (left.key, left.count) == ("odd", 1)


def test_a_vector_of_one_is_a_number(tmp_path: Path) -> None:
    events = epochs(np.ones(1), 2.0, np.full(1, 3.0))
    engine = Engine(LAST)
    for event in events:
        engine.feed(event)
    (trace,) = engine.windows()[1].traces
    assert (trace.name, trace.y.tolist()) == ("odd", [1.0, 2.0, 3.0])
    assert not engine.left_out


def test_what_is_left_out_is_told_once_each(tmp_path: Path) -> None:
    definitions = define(
        {"p": {"type": "line"}},
        {
            "last": {"type": "LastValueMeter", "key": "odd", "target": "p"},
            "best": {"type": "BestValueMeter", "key": "odd", "target": "p"},
        },
    )
    engine = Engine(definitions)
    for event in epochs("x", "y", "z"):
        engine.feed(event)
    news = engine.left_out.news()
    assert [(left.meter, left.step) for left in news] == [("last", 0), ("best", 0)]
    assert engine.left_out.news() == []
    assert [left.count for left in engine.left_out] == [3, 3]
    assert str(next(iter(engine.left_out))) == (
        "'odd' at step 0: LastValueMeter was given the text 'x': value must be real numbers, got "
        "str (and 2 more values)"
    )


def test_play_warns_of_what_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Recorder(tmp_path / f"{name}.h5", facts=False) as rec:
            for event in epochs(1.0, "x", 3.0):
                rec.record(event)
    with Recording(tmp_path / "a.h5") as a, Recording(tmp_path / "b.h5") as b:
        with pytest.warns(RuntimeWarning) as warned:
            play([a, b], LAST)
        told = [str(warning.message) for warning in warned]
    assert [text.partition(" at step 1: ")[0] for text in told] == [
        "left out: a: 'odd'",
        "left out: b: 'odd'",
    ]


def test_play_takes_recordings_alone(tmp_path: Path) -> None:
    for path in (tmp_path / "run.h5", str(tmp_path / "run.h5"), [tmp_path / "run.h5"]):
        with pytest.raises(InputError, match=r"write play\(Recording\("):
            play(path)  # type: ignore[arg-type]


def test_the_first_of_a_place_is_kept() -> None:
    found = LeftOuts()
    found.note("here", LeftOut("k", "m", "why", step=3))
    found.note("here", LeftOut("k", "m", "another", step=4))
    found.note("there", LeftOut("k", "n", "why", x=0.5))
    assert [str(left) for left in found] == [
        "'k' at step 3: why (and 1 more value)",
        "'k' at x = 0.5: why",
    ]
    found.forget("here")
    assert len(found) == 1
    with pytest.raises(DefinitionError, match="'k' at step 3: why"):
        LeftOuts(strict=True).note("here", LeftOut("k", "m", "why", step=3), DefinitionError)


@pytest.mark.parametrize(
    ("calls", "count"),
    [
        ("aa L", 0),
        ("aa L a", 1),
        ("a L ab", 2),  # b is in no mark at all
        ("ab La b", 2),
        ("ab La Lb a", 1),
        ("a L aa R", 0),
        ("a L R a", 1),
        ("aa", 0),  # without logs it is drawn step by step
        ("L c", 0),  # nobody wants c
    ],
)
def test_values_after_the_last_log_are_counted(calls: str, count: int, tmp_path: Path) -> None:
    definitions = define(
        {"p": {"type": "line"}},
        {name: {"type": "AverageValueMeter", "target": "p"} for name in "ab"},
    )
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        for call in calls.split():
            if call[0] == "L":
                rec.log(keys=call[1:] or None)
            elif call[0] == "R":
                rec.reset()
            else:
                for key in call:
                    rec.add({key: 1.0})
    with Recording(tmp_path / "run.h5") as run:
        assert count_unlogged(run, definitions) == count
