"""When alarms go off: conditions, patience, and what their meters cannot take."""

from math import inf, nan
from typing import Any

import numpy as np
import pytest

from flexrec.recorder.errors import MeterError
from flexrec.recorder.events import Add, Event, Log, Reset
from flexrec.replay import define_alarms
from flexrec.replay.engine.alarms import Alarm, AlarmEngine


def added(*values: Any, key: str = "loss") -> list[Event]:
    return [Add({key: value}, i, float(i)) for i, value in enumerate(values)]


def alarms_of(events: list[Event], **table: Any) -> list[Alarm]:
    """The alarms of one definition over events."""
    engine = AlarmEngine(define_alarms({"a": {"key": "loss", **table}}), strict=True)
    return [alarm for event in events for alarm in engine.feed(event)]


def steps(events: list[Event], **table: Any) -> list[int]:
    return [alarm.step for alarm in alarms_of(events, **table)]


@pytest.mark.parametrize(
    ("table", "values", "expected"),
    [
        ({"is": "nan"}, (1.0, nan, nan, inf, nan), [1, 4]),  # once until it has recovered
        ({"is": "inf"}, (1.0, nan, -inf), [2]),
        ({"is": "nonfinite"}, (1.0, inf, nan, 1.0, nan), [1, 4]),
        ({"above": 2}, (2.0, 2.1, 3.0, nan, inf), [1, 4]),
        ({"below": 0}, (0.0, -0.1, 1.0, -inf), [1, 3]),
        ({"above": 2, "patience": 2}, (3.0, 1.0, 3.0, 3.0, 3.0), [3]),
        ({"rises": 3, "over": 2}, (5.0, 5.0, 16.0, 16.0, 1.0, 1e9), [2, 5]),
        ({"rises": 3, "over": 2}, (nan, inf, 1.0, 1.0, nan, 3.1), [5]),
        ({"rises": 2, "over": 1}, (-2.0, -1.0, 0.1), [2]),  # of a negative mean, upwards too
        ({"falls": 0.5, "over": 1}, (4.0, 2.0, 0.9, -4.0, 1.0), [2]),
        ({"is": "nan"}, (np.ones(2), np.array([1.0, nan])), [1]),
        ({"above": 2}, (np.ones(2), np.array([nan, 3.0]), np.ones(0)), [1]),
    ],
)
def test_conditions(table: dict[str, Any], values: tuple[Any, ...], expected: list[int]) -> None:
    assert steps(added(*values), **table) == expected


def test_an_alarm_says_why() -> None:
    (alarm,) = alarms_of(added(1.0, 1.0, 4.0, 5.0), rises=3, over=2, patience=2)
    assert str(alarm) == (
        "a: 'loss' at step 3: 5 is above 3 times 1, the mean before, 2 times in a row"
    )
    assert (alarm.value, alarm.time, alarm.x) == (5.0, 3.0, None)


def test_at_logs_a_meter_has_what_came_since_the_last() -> None:
    values = added(1.0, 5.0)
    first = Log(7.0, None, True, 2, 2.0)
    events = [*values, first, Reset(None, 2, 2.0), first, *values, Log(8.0, ("loss",), True, 5, 5)]
    table = {"type": "AverageValueMeter", "above": 2, "at": "log", "patience": 2}
    (alarm,) = alarms_of(events, **table)
    assert (alarm.value, alarm.x, alarm.step) == (3.0, 8.0, 5)
    assert steps([*values, Reset(None, 2, 2.0), first], **table | {"patience": 1}) == []
    assert steps([*values, Log(1, ("acc",), True, 2, 2)], **table | {"patience": 1}) == []


def test_a_meter_that_runs_across_logs_is_not_reset() -> None:
    events = [*added(9.0), Log(0, None, True, 0, 0.0), *added(1.0)]
    table = {"type": "AverageValueMeter", "above": 4}
    assert steps(events, reset=False, **table) == [0]
    assert alarms_of(events, reset=False, patience=2, **table)[0].value == 5.0
    assert steps(events, patience=2, **table) == []


def test_a_value_that_is_not_taken_counts_neither_way() -> None:
    engine = AlarmEngine(define_alarms({"a": {"key": "loss", "above": 2, "patience": 2}}))
    found = [alarm.step for event in added(3.0, "no", 3.0) for alarm in engine.feed(event)]
    assert found == [2]
    (left,) = engine.left_out
    assert str(left).startswith("'loss' at step 1: LastValueMeter")
    with pytest.raises(MeterError, match="'loss' at step 0"):
        steps(added("no"), above=2)


@pytest.mark.parametrize(("value", "kind"), [(np.ones(2), "LastValueMeter"), ("a", "TextMeter")])
def test_a_result_that_a_condition_cannot_judge_is_left_out(value: Any, kind: str) -> None:
    with pytest.raises(MeterError, match="'loss' at step 0: rises takes numbers, got"):
        steps(added(value), rises=2, type=kind)


def test_a_pattern_passes_over_keys_of_other_kinds() -> None:
    engine = AlarmEngine(define_alarms({"a": {"key": "*", "is": "nan"}}), strict=True)
    event = Add({"note": "text", "b": nan, "pair": (1.0, 2.0), "a": nan}, 3, 0.0)
    found = engine.feed(event)
    assert [(alarm.key, alarm.step) for alarm in found] == [("a", 3), ("b", 3)]
    assert not len(engine.left_out)
