"""Which keys are recorded compactly: what a meter remembers of a value, in the value's place.

What that is, is in reductions.py; this finds the meter that a key is reduced by, and applies it.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from inspect import signature
from typing import Any, Protocol, TypeAlias, cast

import numpy as np

from flexrec.recorder.errors import DefinitionError, InputError, MeterError, counted, nearest
from flexrec.recorder.events import Part, Reduction, State, array_of, is_tensor, normalise
from flexrec.recorder.reduction.reductions import REDUCTIONS


class Reduces(Protocol):
    """Definitions of meters, which know what is enough for them."""

    def reductions(self) -> Mapping[str, Reduction]:
        """By key or pattern."""


Rule: TypeAlias = str | tuple[str, Mapping[str, Any]] | Reduction
"""A meter's name, with its constructor's arguments where there are some, or a reduction."""
Rules: TypeAlias = Mapping[str, Rule] | Reduces
"""A rule by key or pattern, or definitions."""

_WHOLE = frozenset(np.dtype(code) for code in "?bBhHiIlLqQefd")
"""Arrays of these types are reduced where they lie: recording them would not change them."""


def reduction(rule: Rule) -> Reduction:
    """What a rule means.

        >>> str(reduction(("ConfusionMeter", {"k": 10, "normalized": True})))
        'ConfusionMeter(k=10)'

    Raises:
        DefinitionError: no meter of this name remembers less than its values, or the arguments
            are wrong.
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
            f"there are {', '.join(REDUCTIONS)}"
        )
    try:
        return kind.of(args)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"reduce: {kind.meter}: {error}") from None


class Reducer:
    """Reduces the values of the keys that the rules name; the first rule that fits a key holds.

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

    def unused(self) -> list[str]:
        """The keys and patterns that nothing came under, though something came, of those that the
        caller named."""
        found = list(self._found)  # a signal's handler may add amid this
        return sorted(
            pattern
            for pattern in self._named
            if found and not any(key == pattern or fnmatchcase(key, pattern) for key in found)
        )

    def of(self, key: str) -> Reduction | None:
        """What the key is reduced by."""
        if key not in self._found:
            fitting = (r for pattern, r in self._rules.items() if fnmatchcase(key, pattern))
            self._found[key] = self._rules.get(key) or next(fitting, None)
        return self._found[key]

    def reduced(self, key: str, value: object) -> State | None:
        """What is recorded in the value's place; None: the value itself, as it is small or apart.

        A tensor on an accelerator is fetched, which waits for it.

        Raises:
            InputError: the meter could not take in the value, nor replay it.
        """
        found = self.of(key)
        if found is None or value is None or isinstance(value, State):
            return None
        args = value if isinstance(value, (tuple, list)) and value else (value,)
        parts = tuple(_part(key, part) for part in args)
        if len(parts) == 1 and isinstance(parts[0], float):
            return None  # a bare number is as small as can be, and fit for every meter
        try:
            return State(found.state_of(*parts), found)
        except (MeterError, TypeError) as error:
            why = _misfit(found, len(parts)) or error
            raise InputError(f"{key!r} is reduced by {found}: {why}") from None


def _misfit(found: Reduction, count: int) -> str | None:
    """What a meter takes, where it is not so many values."""
    takes = signature(found.state_of)
    try:
        takes.bind(*range(count))
    except TypeError:
        return f"it takes ({', '.join(takes.parameters)}), and was given {counted(count, 'value')}"
    return None


def _part(key: str, part: object) -> Part:
    """A part as `normalise` makes it, but for the copy."""
    whole = array_of(key, part) if is_tensor(part) else part
    if type(whole) is np.ndarray and whole.ndim and whole.dtype in _WHOLE:
        return whole
    return cast(tuple[Part], normalise(key, (whole,)))[0]
