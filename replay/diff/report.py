"""Format the results of a comparison as lines of text and as JSON. Nothing is compared here."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from flexrec.recorder.errors import counted, listed
from flexrec.replay.diff.model import (
    Change,
    Crossing,
    First,
    Keys,
    Noise,
    RankSplit,
    Spread,
    shown_apart,
)

_INDENT = 10  # column at which texts begin, after their names
_METRICS = 3  # losses and metrics whose divergence is told
_MOST = 6  # most keys, entries and layers that are listed


def line(name: str, text: str) -> str:
    """A line of text under a name; an empty name continues the line before."""
    return f"{name:<{_INDENT}}{text}"


def settings(name: str, changes: Sequence[Change]) -> list[str]:
    """Lines for the config or facts that differ, if any."""
    shown = [f"{each.name} {' -> '.join(shown_apart(each.a, each.b))}" for each in changes]
    lines = [line(name if not i else "", text) for i, text in enumerate(shown[:_MOST])]
    more = len(shown) - _MOST
    return lines + ([line("", f"and {more} more")] if more > 0 else [])


def first(found: First) -> list[str]:
    """Lines for the first difference: when, where, why, and the values."""
    lines = [line("first", _told(found, place(found)))]
    if found.one_of:
        lines.append(line("", f"one of {listed(found.one_of, most=_MOST)}"))
    if found.a is not None or found.b is not None:
        apart = "" if found.relative is None else f" ({found.relative:.2g} relative)"
        key = found.key.removeprefix(f"{found.layer}/")
        lines.append(line("", f"{key} {' -> '.join(shown_apart(found.a, found.b))}{apart}"))
    return lines


def headline(found: First) -> str:
    """The first difference in one line: when, where and why."""
    return _told(found, suspects(found))


def suspects(found: First) -> str:
    """The candidates in words, or the only layer; empty if no layer is blamed."""
    return f"one of {listed(found.one_of, most=_MOST)}" if found.one_of else place(found)


def place(found: First) -> str:
    """The layer that is blamed, and its class if it is known; empty if there is none."""
    return (found.layer or "") + (f" ({found.kind})" if found.kind else "")


def _told(found: First, where: str) -> str:
    return f"{_when(found)}, {found.stage}{where and f', {where}'}: {found.cause}"


def noise(found: Noise) -> list[str]:
    """Lines for the verdict by the spread of references."""
    amount = counted(len(found.references), "reference")
    if found.exact:
        return [
            line("noise", f"none: {amount} are equal to the bit, and everything is compared so")
        ]
    if not found.keys:
        return [line("noise", f"no key has enough steps to be judged by {amount}")]
    judged = f"{counted(found.keys, 'key')} judged by {amount}"
    if found.since is None:
        return [line("noise", f"{judged}: within their spread")]
    beyond = f"{len(found.beyond)} beyond their spread from step {found.since} on"
    return [line("noise", f"{judged}: {beyond} (certain at {found.seen})")]


def then(spread: Sequence[Spread], crossed: Sequence[Crossing]) -> list[str]:
    """Lines for how the difference develops."""
    parts = []
    if spread:
        begin, end = spread[0], spread[-1]
        parts.append(f"{begin.layers} of {counted(begin.of, 'layer')} at step {begin.step}")
        if end is not begin:
            parts[-1] += f", {end.layers} of {end.of} at step {end.step}"
    by_key: dict[str, list[Crossing]] = {}
    for each in crossed:
        by_key.setdefault(each.key, []).append(each)
    for key, crossings in list(by_key.items())[:_METRICS]:
        steps = ", ".join(f"{each.beyond:.0e} at {each.step}" for each in crossings)
        parts.append(f"{key} beyond {steps}".replace("e-0", "e-"))
    if len(by_key) > _METRICS:
        parts.append(f"{len(by_key) - _METRICS} more")
    return [line("then", "; ".join(parts))] if parts else []


def keys(found: Keys, runs: tuple[str, str], ends: tuple[int | None, int | None]) -> list[str]:
    """Lines for the number of keys that differ, and the keys that only one run has."""
    lines = [line("keys", f"{len(found.differ)} of {counted(found.compared, 'key')} differ")]
    for run, only in zip(runs, (found.only_a, found.only_b), strict=True):
        if only:
            lines.append(line("", f"only in {run}: {listed(only, most=_MOST)}"))
    if found.unmatched and ends[0] != ends[1]:
        said = f"{runs[0]} ends at step {ends[0]}, {runs[1]} at {ends[1]}"
        lines.append(line("length", said))
    elif found.unmatched:
        lines.append(line("length", listed(_unmatched(found, runs), most=3)))
    return lines


def splits(found: Sequence[RankSplit]) -> list[str]:
    """Lines for keys on which ranks agree at first and later differ."""
    lines = [
        line("split", f"{each.key} {_since(each)} not on {listed(each.ranks)}")
        for each in found[:_MOST]
    ]
    more = len(found) - _MOST
    return lines + ([line("", f"and {counted(more, 'more key')}")] if more > 0 else [])


def _since(split: RankSplit) -> str:
    if split.since is None:
        return f"never agrees: from step {split.step} on"
    return f"agrees up to step {split.since}, from step {split.step} on"


def table(found: Any) -> dict[str, Any]:
    """Convert a result to plain JSON values; numbers that are not finite become texts."""
    return {name: _plain(value) for name, value in asdict(found).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _when(found: First) -> str:
    if found.has_gap:
        return f"between step {found.previous_step} (equal) and {found.step}"
    return f"step {found.step}"


def _unmatched(found: Keys, runs: tuple[str, str]) -> Iterable[str]:
    for key, counts in found.unmatched.items():
        parts = [f"{n} only in {run}" for n, run in zip(counts, runs, strict=True) if n]
        yield f"{key} has values at steps that only one has ({' and '.join(parts)})"
