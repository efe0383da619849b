"""What a comparison finds, piece by piece. Nothing is compared here; the whole is in result.py."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Stage: TypeAlias = Literal[
    "config", "data", "forward", "loss", "backward", "optimizer", "weights", "metric"
]
"""Where in a step a difference comes up, in the order of time."""

Shown: TypeAlias = float | str | None
"""A value as it is told: a number, a short text, or None where there is none."""


@dataclass(frozen=True)
class Change:
    """An entry of the config or the facts that differs; None where one has none.

    Attributes:
        name: its path, with points between, such as `packages.torch`.
    """

    name: str
    a: Shown
    b: Shown


@dataclass(frozen=True)
class Blame:
    """What a difference is blamed on; First has the same."""

    stage: Stage
    key: str
    layer: str | None = None
    cause: str = ""
    one_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class First:
    """The first difference in the order of time, and what it is blamed on.

    Attributes:
        step: where it comes up.
        previous_step: the last step before it that was compared and is equal; None: there is none.
        stage: where in the step.
        model: the watched model's name, where it has one.
        layer: the layer that is blamed; None: no single layer.
        kind: the layer's class, where it is known.
        cause: why, in words.
        one_of: where it cannot be told apart, what it may be; empty where it can.
        key: the key, or the event of a trace, that differs first.
        a, b: its values; None where one has none.
        relative: how far apart these are, relative to the first; None where this means nothing.
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

    @property
    def has_gap(self) -> bool:
        """Whether steps between the last equal one and this were not recorded."""
        return self.previous_step is not None and self.step - self.previous_step > 1


@dataclass(frozen=True)
class Keys:
    """Which keys were compared, and how that went.

    Attributes:
        compared: how many both have.
        differ: those of them that differ, the first to differ first.
        only_a, only_b: keys that only one has.
        unmatched: of keys that both have, how many values only the first has, and only the second.
    """

    compared: int
    differ: tuple[str, ...] = ()
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    unmatched: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread:
    """How many of the layers differ at a step, or did before."""

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
class RankSplit:
    """A key that agrees on all ranks at first, and from some step on does not.

    Attributes:
        step: the first step at which it does not.
        since: the last step before at which it does.
        ranks: the names of the recordings that are not as most are.
    """

    key: str
    step: int
    since: int
    ranks: tuple[str, ...]
