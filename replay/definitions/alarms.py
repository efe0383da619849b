"""Alarms as checked, plain data, from Python dicts or a TOML file. Nothing is watched here."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from flexrec.recorder.errors import DefinitionError, listed, nearest
from flexrec.replay.definitions.definitions import (
    MeterDefinition,
    Table,
    check_names,
    fed_meter,
    named_tables,
)

CONDITIONS = ("is", "above", "below", "rises", "falls")
STATES = ("nan", "inf", "nonfinite")
"""What the condition `is` looks for."""

TIMES = ("value", "log")
"""When a meter is read: after each value, or at each log."""

_DEFAULT_OVER, _MOST_OVER = 20, 1000
_METER = ("key", "type", "args", "field", "exclude", "reset")
_ALARM = (*_METER, *CONDITIONS, "over", "at", "patience")
_MEANS = {
    "is": f"is one of {', '.join(STATES)}",
    "above": "is a number",
    "below": "is a number",
    "rises": "is a number above 1: how many times the mean of the results before",
    "falls": "is a number from 0 to 1: which part of the mean of the results before",
}


@dataclass(frozen=True)
class Condition:
    """What a meter's result must be for an alarm.

    Attributes:
        name: one of `CONDITIONS`.
        limit: a number; for `is` one of `STATES`.
        over: of how many results before `rises` and `falls` take the mean.
    """

    name: str
    limit: Any
    over: int = _DEFAULT_OVER


@dataclass(frozen=True)
class AlarmDefinition:
    """An alarm: it goes off when a meter's results have met a condition several times in a row.

    Attributes:
        name: the alarm's name.
        meter: the meter, and the key or pattern that feeds it; each key has its own meter.
        condition: what its result must be.
        at: when the meter is read, one of `TIMES`.
        patience: how many results in a row must meet the condition.
    """

    name: str
    meter: MeterDefinition
    condition: Condition
    at: str = TIMES[0]
    patience: int = 1


Alarms: TypeAlias = tuple[AlarmDefinition, ...]


def define_alarms(tables: Table, *, where: str = "") -> Alarms:
    """Check alarms given as dicts.

    >>> alarms = define_alarms(
    ...     {
    ...         "nan": {"key": "*loss*", "is": "nan"},
    ...         "spike": {"key": "train_loss", "rises": 3.0, "patience": 5},
    ...     }
    ... )
    >>> alarms[1].condition
    Condition(name='rises', limit=3.0, over=20)

    Args:
        tables: name → {"key": key or pattern, one condition, "patience": int, "at": "value" or
            "log", "type": a meter, by default LastValueMeter, and its "args", "field", "exclude"
            and "reset" as in `define`}. The condition is one of "is": "nan", "inf" or
            "nonfinite"; "above": number; "below": number; "rises": factor; "falls": factor. The
            last two compare with the mean of the last "over" results, by default 20.
        where: a prefix of every error message, such as the file's name.

    Raises:
        DefinitionError: a definition is wrong; names the place, the fault, and the nearest right
            name.
    """
    try:
        return tuple(_alarm(name, table) for name, table in named_tables(tables, "alarms").items())
    except DefinitionError as error:
        raise DefinitionError(f"{where}: {error}" if where else str(error)) from None


def _alarm(name: str, table: Table) -> AlarmDefinition:
    where = f"alarms.{name}"
    check_names(where, table, _ALARM)
    if "key" not in table:
        raise DefinitionError(f'{where} needs a key: a name or a pattern, such as "*loss*"')
    meter = fed_meter(where, name, {"type": "LastValueMeter", **table})
    at = _choice(f"{where}.at", table.get("at", TIMES[0]), TIMES)
    patience = _whole(f"{where}.patience", table.get("patience", 1))
    return AlarmDefinition(name, meter, _condition(where, table), at, patience)


def _condition(where: str, table: Table) -> Condition:
    named = [name for name in CONDITIONS if name in table]
    if len(named) != 1:
        came = " and ".join(named) or "none"
        raise DefinitionError(f"{where} needs one condition of {listed(CONDITIONS)}, got {came}")
    (name,) = named
    place, limit = f"{where}.{name}", table[name]
    if name == "is":
        limit = _choice(place, limit, STATES)
    elif not _fits(name, limit):
        raise DefinitionError(f"{place} {_MEANS[name]}, got {limit!r:.40}")
    if "over" not in table:
        return Condition(name, limit)
    if name not in ("rises", "falls"):
        raise DefinitionError(f"{where}.over is for rises and falls: {name} takes no mean")
    return Condition(name, limit, _whole(f"{where}.over", table["over"], _MOST_OVER))


def _fits(name: str, limit: object) -> bool:
    if isinstance(limit, bool) or not isinstance(limit, (int, float)):
        return False
    if not abs(limit) <= sys.float_info.max:  # also of NaN, and of an int that fits no float
        return False
    return {"rises": limit > 1, "falls": 0 <= limit < 1}.get(name, True)


def _choice(place: str, value: object, known: tuple[str, ...]) -> str:
    if value not in known:
        near = nearest(value, known) if isinstance(value, str) else ""
        raise DefinitionError(f"{place} is one of {', '.join(known)}, got {value!r:.40}{near}")
    return str(value)


def _whole(place: str, value: object, most: float = math.inf) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        limit = f"from 1 to {most}" if most < math.inf else "of at least 1"
        raise DefinitionError(f"{place} is a whole number {limit}, got {value!r:.40}")
    return value


def as_alarms(alarms: "Alarms | Mapping[str, Any]") -> Alarms:
    """Alarms that were given as dicts, or as `define_alarms` and `load_alarms` return them."""
    return define_alarms(alarms) if isinstance(alarms, Mapping) else tuple(alarms)
