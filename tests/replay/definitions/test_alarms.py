"""Alarms as data: what is accepted, and how faults are told."""

from pathlib import Path
from typing import Any

import pytest

from flexrec.recorder import DefinitionError
from flexrec.replay import define_alarms, load_alarms, load_toml
from flexrec.replay.definitions.alarms import Condition


def test_a_table_becomes_an_alarm() -> None:
    table = {"key": "*loss", "rises": 2, "over": 5, "patience": 3, "at": "log", "reset": False}
    (alarm,) = define_alarms({"spike": table})
    assert (alarm.name, alarm.at, alarm.patience) == ("spike", "log", 3)
    assert alarm.condition == Condition("rises", 2, 5)
    assert (alarm.meter.key, alarm.meter.type, alarm.meter.reset) == ("*loss", "LastValueMeter", 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"is": "nan"}, r'alarms.a needs a key: a name or a pattern, such as "\*loss\*"'),
        ({"key": "k"}, "alarms.a needs one condition of is, above, below, rises, falls, got none"),
        ({"key": "k", "above": 1, "is": "nan"}, "needs one condition .*, got is and above"),
        ({"key": "k", "abov": 1}, "alarms.a: unknown key 'abov'; did you mean 'above'"),
        ({"key": "k", "is": "Nan"}, "alarms.a.is is one of nan, .* got 'Nan'; did you mean 'nan'"),
        ({"key": "k", "is": 3}, "alarms.a.is is one of nan, inf, nonfinite, got 3"),
        ({"key": "k", "above": "1"}, "alarms.a.above is a number, got '1'"),
        ({"key": "k", "above": True}, "alarms.a.above is a number, got True"),
        ({"key": "k", "below": float("nan")}, "alarms.a.below is a number, got nan"),
        ({"key": "k", "above": 10**400}, "alarms.a.above is a number, got 1000"),
        ({"key": "k", "rises": 1}, "alarms.a.rises is a number above 1: how many times"),
        ({"key": "k", "falls": 2}, "alarms.a.falls is a number from 0 to 1"),
        ({"key": "k", "above": 1, "over": 3}, "over is for rises and falls: above takes no mean"),
        ({"key": "k", "rises": 3, "over": 0}, "alarms.a.over is a whole number from 1 to 1000"),
        ({"key": "k", "above": 1, "patience": 0}, "patience is a whole number of at least 1"),
        ({"key": "k", "above": 1, "at": "logs"}, "at is one of value, log.*did you mean 'log'"),
        ({"key": "k", "above": 1, "type": "AvergeValueMeter"}, "mean 'AverageValueMeter'"),
        ({"key": "k", "above": 1, "field": "x"}, "alarms.a.field: the meter has no 'x', it has"),
        ({"key": 5, "above": 1}, "alarms.a.key must be a name, got int 5"),
        (5, "alarms.a must be a table, got int"),
    ],
)
def test_a_fault_is_told_at_its_place(table: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        define_alarms({"a": table})


def test_a_file_may_hold_plots_and_alarms(tmp_path: Path) -> None:
    path = tmp_path / "plots.toml"
    path.write_text('preset = "loss"\n[alarms.nan]\nkey = "*"\nis = "nan"\n')
    assert [alarm.name for alarm in load_alarms(path)] == ["nan"]
    assert "loss" in load_toml(path).plots
    path.write_text('preset = "loss"\n')
    with pytest.raises(DefinitionError, match=r"plots.toml has no alarms"):
        load_alarms(path)
    path.write_text('preset = "loss"\n[alarms.nan]\nkey = "*"\nis = "nam"\n')
    for load in (load_alarms, load_toml):
        with pytest.raises(DefinitionError, match=r"plots.toml: alarms.nan.is .*mean 'nan'"):
            load(path)
    path.write_text("[alarm.nan]\n")
    with pytest.raises(DefinitionError, match="unknown key 'alarm'; did you mean 'alarms'"):
        load_alarms(path)
