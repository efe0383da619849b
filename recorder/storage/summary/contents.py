"""The contents of a summary: times, config, facts and statistics of the keys, up to a bound."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from flexrec.recorder.storage.summary.head import MOST
from flexrec.recorder.storage.summary.statistics import Statistics

STATISTICS = (
    "count",
    "not_finite",
    "step",
    "last",
    "min",
    "min_at",
    "max",
    "max_at",
    "mean",
)
"""The statistics of a key of numbers, in the order of the lists in a summary's `keys`."""

_CONFIG, _FACTS, _TEXT = 24 << 10, 8 << 10, 1 << 20  # bytes: in a summary; of JSON that is parsed
_SPARE = 256  # bytes: the head, and the last count of keys
_SHORTEST = len('"":[0],')  # of what a summary says about a key


class Totals(NamedTuple):
    """The statements of a summary about a whole recording.

    Attributes:
        created, ended: seconds since 1970: when it was made, and its last event.
        events: the number of events of every code.
        resumes: how often the run was resumed.
        dropped: how many events could not be written.
    """

    created: float
    ended: float
    events: int
    resumes: int
    dropped: int


def summary_body(
    totals: Totals,
    config: bytes,
    facts: bytes,
    counts: Mapping[str, int],
    statistics: Mapping[str, Statistics],
) -> bytes:
    """The JSON object of the summary of a closed file, without its head.

    Args:
        config, facts: JSON texts. Members for which there is no room are left out, and counted.
        counts: the number of values of each key.
        statistics: those of the keys whose values are all numbers, of `may_have_room`.
    """
    texts, left_out = _texts(config, facts)
    body: dict[str, Any] = {"state": "closed"}
    body |= {name: _json(value) for name, value in totals._asdict().items()}
    body |= {**texts, "statistics": STATISTICS, "left_out": left_out | {"keys": len(counts)}}
    room = MOST - _SPARE - len(_dumped(body))
    members = dict[str, str]()
    for key in _by_importance(counts):
        line = [counts[key]] if key not in statistics else line_of(statistics[key])
        members[key] = f"{_dumped(key)}:{_dumped(line)}"
        room -= len(members[key]) + 1
        if room < 0:
            del members[key]
            break
    left_out["keys"] = len(counts) - len(members)
    body["left_out"] = {name: count for name, count in left_out.items() if count}
    keys = ",".join(members[key] for key in counts if key in members)
    return f'{_dumped(body)[:-1]},"keys":{{{keys}}}}}'.encode()


def live_body(created: float, config: bytes, facts: bytes) -> bytes:
    """The JSON object of the summary of a live file, which is written when the file is made."""
    texts, left_out = _texts(config, facts)
    kept = {name: count for name, count in left_out.items() if count}
    body = {"state": "live", "created": _json(created), **texts, "left_out": kept}
    return _dumped(body).encode()


def _texts(config: bytes, facts: bytes) -> tuple[dict[str, Any], dict[str, int]]:
    """The config and the facts, and how many members of each are left out."""
    found = {"config": _within(config, _CONFIG), "facts": _within(facts, _FACTS)}
    left_out = {name: count for name, (_, count) in found.items()}
    return {name: value for name, (value, _) in found.items()}, left_out


def may_have_room(keys: Iterable[str]) -> set[str]:
    """The keys for which a summary may have room; of no others statistics are needed."""
    chosen, room = set[str](), MOST
    for key in _by_importance(keys):
        room -= len(key) + _SHORTEST
        if room < 0:
            break
        chosen.add(key)
    return chosen


def _by_importance(keys: Iterable[str]) -> list[str]:
    """The keys of metrics before those of layers, which have more slashes."""
    return sorted(keys, key=lambda key: key.count("/"))


def line_of(of: Statistics) -> list[Any]:
    """The list of a key of numbers in a summary."""
    found = (of.count, of.not_finite, of.last_at, of.last, of.least, of.least_at)
    return [_json(value) for value in (*found, of.greatest, of.greatest_at, of.mean)]


def _within(text: bytes, room: int) -> tuple[Any, int]:
    """The JSON data with as many members as there is room for, and how many are left out."""
    try:
        found = _json(json.loads(text)) if len(text) <= _TEXT else ...
    except (ValueError, RecursionError):
        found = ...
    if found is ...:
        return None, 1
    if not isinstance(found, dict):
        return (found, 0) if len(_dumped(found)) <= room else (None, 1)
    sizes = {name: len(_dumped({name: value})) for name, value in found.items()}
    kept = set[str]()
    for name in sorted(sizes, key=lambda name: sizes[name]):
        if sizes[name] <= room:
            kept.add(name)
            room -= sizes[name]
    return {name: found[name] for name in found if name in kept}, len(found) - len(kept)


def _json(value: Any) -> Any:
    """The data with NaN and infinities, which JSON lacks, as texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _json(one) for name, one in value.items()}
    return [_json(one) for one in value] if isinstance(value, list) else value


_dumped = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
