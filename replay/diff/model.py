"""The parts of a comparison's result. Nothing is compared here; result.py has the whole results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

Stage: TypeAlias = Literal[
    "config", "data", "forward", "loss", "backward", "optimizer", "weights", "metric"
]
"""The stages of a step at which a difference can appear, in the order of time."""

Shown: TypeAlias = float | str | None
"""A value as it is shown: a number, a short text, or None if there is none."""


def shown_apart(a: Shown, b: Shown, digits: int = 9) -> tuple[str, str]:
    """Two values that differ, as texts that differ: with all digits if they need them.

    >>> shown_apart(0.1, 0.25), shown_apart(0.1, 0.1 + 2**-56)
    (('0.1', '0.25'), ('0.1', '0.10000000000000002'))
    """
    one, other = (_text(value, digits) for value in (a, b))
    if one != other or a is None or b is None:
        return one, other
    one, other = repr(a), repr(b)
    return (one, other) if one != other else (one, f"{other} of other bits")


def _text(value: Shown, digits: int) -> str:
    if value is None:
        return "nothing"
    return f"{value:.{digits}g}" if isinstance(value, float) else value


class Side(Protocol):
    """One of the two runs that are compared: what its result says of it."""

    @property
    def name(self) -> str:
        """The name of the run."""

    @property
    def config(self) -> Any:
        """Its config, as plain JSON values."""

    @property
    def facts(self) -> Any:
        """Its facts, as plain JSON values."""

    @property
    def layers(self) -> Mapping[str, Mapping[str, Any]]:
        """The fields of the watched layers by name, as in `Recording.models`; may be empty."""


def kind_of(run: Side, layer: str | None) -> str | None:
    """The class of a layer, if it was recorded."""
    found = run.layers.get(layer or "", {}).get("class")
    return found if isinstance(found, str) else None


def order_of(run: Side) -> dict[str, int]:
    """The place of each layer in the order in which they ran, if it was recorded; a layer that did
    not run at first comes after the one before it in its model."""
    found, last = dict[str, int](), dict[object, int]()
    for layer, fields in run.layers.items():
        order, model = fields.get("order"), fields.get("model")
        found[layer] = last[model] = order if isinstance(order, int) else last.get(model, -1)
    return {layer: i for i, layer in enumerate(sorted(found, key=found.__getitem__))}


@dataclass(frozen=True)
class Change:
    """An entry of the config or the facts that differs; None if a run does not have it.

    Attributes:
        name: its path, separated by points, such as `packages.torch`.
    """

    name: str
    a: Shown
    b: Shown


@dataclass(frozen=True)
class Blame:
    """The likely cause of a difference; First has the same fields."""

    stage: Stage
    key: str
    layer: str | None = None
    cause: str = ""
    one_of: tuple[str, ...] = ()


class Values(NamedTuple):
    """The values of two runs, and their difference relative to the first if it is defined."""

    a: Shown
    b: Shown
    relative: float | None = None


@dataclass(frozen=True)
class First:
    """The first difference in the order of time, and its likely cause.

    Attributes:
        step: the step at which it appears.
        previous_step: the last earlier step that was compared and is equal; None: there is none.
        stage: the stage of the step.
        model: the watched model's name, if it has one.
        layer: the layer that causes it; None: no single layer.
        kind: the layer's class, if it is known.
        cause: the cause, in words.
        one_of: the candidates, if the cause cannot be narrowed down; else empty.
        key: the key, or the event of a trace, that differs first.
        a, b: its values; None if a run has none.
        relative: their difference relative to the first; None if it is not defined.
    """

    step: int
    previous_step: int | None
    stage: Stage
    model: str | None
    layer: str | None
    kind: str | None
    cause: str
    one_of: tuple[str, ...]
    key: str
    a: Shown
    b: Shown
    relative: float | None

    @classmethod
    def of(
        cls,
        blamed: Blame,
        step: int,
        previous_step: int | None,
        values: "Values",
        *,
        key: str | None = None,
        model: str | None = None,
        kind: str | None = None,
    ) -> "First":
        """Make it from its likely cause; `key` is the cause's if it is not given."""
        return cls(
            step=step,
            previous_step=previous_step,
            stage=blamed.stage,
            model=model,
            layer=blamed.layer,
            kind=kind,
            cause=blamed.cause,
            one_of=blamed.one_of,
            key=blamed.key if key is None else key,
            a=values.a,
            b=values.b,
            relative=values.relative,
        )

    @property
    def has_gap(self) -> bool:
        """Whether steps between the last equal one and this were not recorded."""
        return self.previous_step is not None and self.step - self.previous_step > 1


@dataclass(frozen=True)
class Keys:
    """The keys that were compared, and the result.

    Attributes:
        compared: the number of keys that both runs have.
        differ: those of them that differ, in the order in which they begin to differ.
        only_a, only_b: keys that only one run has.
        unmatched: for keys that both have, the number of values that only the first, and only the
            second run has.
    """

    compared: int
    differ: tuple[str, ...] = ()
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    unmatched: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread:
    """The number of layers that differ at a step or an earlier one."""

    step: int
    layers: int
    of: int


@dataclass(frozen=True)
class Crossing:
    """The first step at which a key's relative difference is beyond a limit."""

    key: str
    beyond: float
    step: int


@dataclass(frozen=True)
class Noise:
    """The verdict on a run by the spread of references.

    Attributes:
        references: the names of the references; the first run of the comparison is one.
        limit: how many times the spread a key may lie outside.
        exact: whether all references are equal to the bit, so that everything was compared to it.
        keys: the number of keys that were judged.
        since: the first step beyond the spread; None: the run is within it.
        seen: the step at which that is certain.
        beyond: the keys that are beyond by themselves, in the order in which they begin to be.
    """

    references: tuple[str, ...]
    limit: float
    exact: bool = False
    keys: int = 0
    since: int | None = None
    seen: int | None = None
    beyond: tuple[str, ...] = ()


@dataclass(frozen=True)
class RankSplit:
    """A key that agrees on all ranks at first, and differs from some step on; or that never agrees.

    Attributes:
        step: the first step at which it differs.
        since: the last earlier step at which it agrees; None if it never does.
        ranks: the names of the recordings that differ from the majority.
    """

    key: str
    step: int
    since: int | None
    ranks: tuple[str, ...]
