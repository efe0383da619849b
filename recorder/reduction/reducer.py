"""Reducer: find the keys to reduce, and replace their values by meters' states.

The reductions themselves are in reductions.py.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from inspect import signature
from typing import Any, Protocol, TypeAlias, cast

import numpy as np

from flexrec.recorder.errors import (
    DefinitionError,
    InputError,
    MeterError,
    counted,
    nearest,
    warn,
)
from flexrec.recorder.events import Part, Reduction, State, array_of, is_tensor, normalise
from flexrec.recorder.files.names import is_around
from flexrec.recorder.reduction.reductions import REDUCTIONS, Averages, doubted_sum


class Reduces(Protocol):
    """Definitions of meters that can list their reductions."""

    def reductions(self) -> Mapping[str, Reduction]:
        """The reductions by key or pattern."""


Rule: TypeAlias = str | tuple[str, Mapping[str, Any]] | Reduction
"""A meter's name, or a name and the constructor's arguments, or a reduction."""
Rules: TypeAlias = Mapping[str, Rule] | Reduces
"""Rules by key or pattern, or definitions of meters."""

_WHOLE = frozenset(np.dtype(code) for code in "?bBhHiIlLqQefd")
"""Arrays of these dtypes are reduced without conversion, since recording would not change them."""


def reduction(rule: Rule) -> Reduction:
    """The reduction that a rule stands for.

        >>> str(reduction(("ConfusionMeter", {"k": 10, "normalized": True})))
        'ConfusionMeter(k=10)'

    Raises:
        DefinitionError: no meter of this name has a small state, or its arguments are wrong.
    """
    if isinstance(rule, Reduction):
        return rule
    name, args = rule if isinstance(rule, (tuple, list)) and len(rule) == 2 else (rule, {})
    if not isinstance(name, str) or not isinstance(args, Mapping):
        raise DefinitionError(
            "reduce takes a meter's name, or (name, {argument: value}), for each key or pattern, "
            f"got {rule!r:.60}"
        )
    folded = {known.lower(): kind for known, kind in REDUCTIONS.items()}
    kind = folded.get(name.strip().lower())
    if kind is None:
        raise DefinitionError(
            f"reduce: {name!r} keeps no small state{nearest(name, REDUCTIONS)}; "
            f"meters that do are {', '.join(REDUCTIONS)}"
        )
    try:
        return kind.of(args)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"reduce: {kind.meter}: {error}") from None


class Reducer:
    """Reduces the values of keys that match a rule; the first matching rule applies.

    >>> reducer = Reducer({"*_mse": "MSEMeter"})
    >>> tuple(reducer.reduced("train_mse", (np.ones(4), np.zeros(4))))
    (4.0, 4.0)
    """

    def __init__(self, rules: Rules) -> None:
        named: Mapping[str, Rule]
        if isinstance(rules, Mapping):
            named = rules
        elif callable(getattr(rules, "reductions", None)):
            named = rules.reductions()
        else:
            raise DefinitionError(
                "reduce takes a mapping of keys to meters, or definitions, such as preset('MSE') "
                f"or load_toml('plots.toml'), got {rules!r:.60}"
            )
        self._rules = {pattern: reduction(rule) for pattern, rule in named.items()}
        self._found: dict[str, Reduction | None] = {}
        self._named = {p for p, rule in named.items() if not isinstance(rule, Reduction)}
        # Of averages whose pairs may be means, and of which no pair has come.
        self._doubts = {p for p in named if named[p] == Averages.meter}

    def unused(self) -> list[str]:
        """The caller's keys and patterns that matched no key; empty if no key was recorded."""
        found = list(self._found)  # a signal handler may add meanwhile
        return sorted(
            pattern
            for pattern in self._named
            if found and not any(key == pattern or fnmatchcase(key, pattern) for key in found)
        )

    def of(self, key: str) -> Reduction | None:
        """The reduction of a key, if any; a pattern is not meant for what is around training."""
        if is_around(key) and key not in self._rules:
            return None
        if key not in self._found:
            fitting = (r for pattern, r in self._rules.items() if fnmatchcase(key, pattern))
            self._found[key] = self._rules.get(key) or next(fitting, None)
        return self._found[key]

    def reduced(self, key: str, value: object) -> State | None:
        """The state to record in the value's place; None if the value is not reduced.

        A tensor on an accelerator is fetched, which waits for it.

        Raises:
            InputError: the meter does not accept the value, so it could not be replayed.
        """
        found = self.of(key)
        if found is None or value is None or isinstance(value, State):
            return None
        args = value if isinstance(value, (tuple, list)) and value else (value,)
        parts = tuple(_part(key, part) for part in args)
        if len(parts) == 1 and isinstance(parts[0], float):
            return None  # a single number is small, and every meter can read it
        try:
            self._look(key, parts)
            return State(found.state_of(*parts), found)
        except (MeterError, TypeError) as error:
            why = _misfit(found, len(parts)) or error
            raise InputError(f"{key!r} is reduced by {found}: {why}") from None

    def _look(self, key: str, parts: tuple[Part, ...]) -> None:
        """Warn if the first pair of a pattern's keys looks like a mean, though sums are asked."""
        doubts = [p for p in self._doubts if self._rules[p] is self._found[key]]
        if doubts and len(parts) == 2 and isinstance(parts[1], float):
            self._doubts.difference_update(doubts)
            doubt = doubted_sum(parts[0], parts[1], is_first=True)
            if doubt is not None:
                warn(f"{key!r}: {doubt}")


def _misfit(found: Reduction, count: int) -> str | None:
    """An error message if the meter does not take `count` values."""
    takes = signature(found.state_of)
    try:
        takes.bind(*range(count))
    except TypeError:
        return f"it takes ({', '.join(takes.parameters)}), and was given {counted(count, 'value')}"
    return None


def _part(key: str, part: object) -> Part:
    """Convert a part as `normalise` does, but without a copy."""
    whole = array_of(key, part) if is_tensor(part) else part
    if type(whole) is np.ndarray and whole.ndim and whole.dtype in _WHOLE:
        return whole
    return cast(tuple[Part], normalise(key, (whole,)))[0]
