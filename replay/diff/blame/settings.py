"""Compare the config and facts of two runs, entry by entry, as they may explain a difference."""

from collections.abc import Iterator
from typing import Any

from flexrec.replay.diff.model import Change, Shown

_OF_ITS_OWN = frozenset(
    {"started", "pid", "resumed", "merged"}
)  # facts that differ between any two runs
_LONGEST = 80


def changes(a: Any, b: Any, leave_out: frozenset[str] = frozenset()) -> tuple[Change, ...]:
    """The entries of two JSON values that differ, by their paths.

    >>> changes({"lr": {"base": 1, "warm": 2}}, {"lr": {"base": 3, "warm": 2}})
    (Change(name='lr.base', a='1', b='3'),)
    """
    one, other = dict(_leaves(a)), dict(_leaves(b))
    return tuple(
        Change(name, _shown(one, name), _shown(other, name))
        for name in dict.fromkeys((*one, *other))
        if repr(one.get(name)) != repr(other.get(name)) and name.split(".")[0] not in leave_out
    )


def fact_changes(a: Any, b: Any) -> tuple[Change, ...]:
    """The facts that differ, except those that differ between any two runs."""
    if a is None or b is None:
        return ()
    return changes(a, b, _OF_ITS_OWN)


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of a JSON value (all but objects with members), by their paths."""
    waiting = [("", value)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict) and value:
            before = f"{path}." if path else ""
            waiting += [(f"{before}{name}", inner) for name, inner in reversed(value.items())]
        elif value is not None or path:
            yield path, value


def _shown(found: dict[str, Any], name: str) -> Shown:
    if name not in found:
        return None
    text = " ".join(map(str, found[name])) if isinstance(found[name], list) else str(found[name])
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
