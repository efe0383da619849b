"""Compare the config and facts of two runs, entry by entry, as they may explain a difference."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from flexrec.replay.diff.model import Change, Shown

_OF_ITS_OWN = frozenset(
    {"started", "pid", "resumed", "merged", "git_patch"}
)  # facts that differ between any two runs
_LONGEST = 80
_FILE = re.compile(r"^diff --git \"?a/.* \"?b/(.*?)\"?$", re.M)


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
    return (*changes(a, b, _OF_ITS_OWN), *_patch_changes(_patches(a), _patches(b)))


def _patch_changes(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[Change]:
    """The files whose uncommitted changes differ: the numbers of lines added and removed."""
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            one, other = (_lines_changed(each.get(name)) for each in (a, b))
            same = ", other lines" if one == other else ""
            yield Change(f"git_patch.{name}", one, other and f"{other}{same}")


def _patches(facts: Any) -> dict[str, str]:
    """The uncommitted changes, by file."""
    patch = facts.get("git_patch") if isinstance(facts, dict) else None
    text = patch.get("text") if isinstance(patch, dict) else None
    parts = _FILE.split(text) if isinstance(text, str) else [""]
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _lines_changed(patch: str | None) -> str | None:
    if patch is None:
        return None
    lines = [line for line in patch.splitlines() if not line.startswith(("+++ ", "--- "))]
    added, removed = (sum(line.startswith(sign) for line in lines) for sign in "+-")
    return f"+{added} -{removed}"


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of a JSON value (all but objects with members), by their paths."""
    waiting = [("", value)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict) and value:
            before = f"{path}." if path else ""
            waiting += [(f"{before}{name}", inner) for name, inner in reversed(value.items())]
        elif path or value not in (None, {}):
            yield path, value


def _shown(found: dict[str, Any], name: str) -> Shown:
    if name not in found:
        return None
    text = " ".join(map(str, found[name])) if isinstance(found[name], list) else str(found[name])
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
