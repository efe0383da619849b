"""Phases in keys: train, val, test, … before or after a metric's name. No definitions here.

A meter's key `{train}_loss` matches every spelling: `train_loss`, `loss/train`, `train.loss`,
`Loss-Train`, and Lightning's `train_loss_step`. `{}_loss` matches a bare `loss`.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

PHASES = ("train", "val", "valid", "validation", "test", "eval")
"""The phases that are looked for by default."""

_TEMPLATE = re.compile(r"\{(?P<phase>[^{}]*)\}_(?P<name>.+)")
_BETWEEN = r"[_/.\-]"
_MOST = 4096  # keys that are remembered: many runs have the same ones
_PART = rf"(?:{_BETWEEN}(step|epoch))?"  # Lightning logs a value twice, with these endings


@lru_cache(_MOST)
def is_phased(key: str) -> bool:
    """Whether a meter's key has the form `{phase}_name`."""
    return _TEMPLATE.fullmatch(key) is not None


def metric_of(key: str) -> str:
    """The name in a phased key.

    >>> metric_of("{train}_loss")
    'loss'
    """
    found = _TEMPLATE.fullmatch(key)
    return found["name"] if found else key


def phase_of(key: str) -> str:
    """The phase in a phased key, in small letters; "" if there is none.

    >>> phase_of("{Train}_loss"), phase_of("{}_loss"), phase_of("train_loss")
    ('train', '', '')
    """
    found = _TEMPLATE.fullmatch(key)
    return found["phase"].lower() if found else ""


def phase_in(name: str, phases: Iterable[str] = PHASES) -> str:
    """The phase that a name in a legend begins or ends with, in small letters; "" if there is none.

    >>> phase_in("train step"), phase_in("val (loss/val)"), phase_in("Loss")
    ('train', 'val', '')
    """
    for phase in phases:
        word = re.escape(phase)
        if re.fullmatch(rf"{word}(?:[_/.\- ].+)?|.+[_/.\- ]{word}", name, re.I | re.S):
            return phase.lower()
    return ""


def written(key: str) -> str:
    """The usual spelling of a phased key; other keys are returned unchanged.

    >>> written("{train}_loss"), written("{}_loss")
    ('train_loss', 'loss')
    """
    found = _TEMPLATE.fullmatch(key)
    return f"{found['phase']}_{found['name']}".removeprefix("_") if found else key


@lru_cache(_MOST)
def part_of(template: str, key: str) -> str | None:
    """The part of a phased key that a recorded key is: "", "step" or "epoch"; None: no match.

    >>> part_of("{train}_loss", "train_loss_step"), part_of("{train}_loss", "Loss/train")
    ('step', '')
    >>> part_of("{train}_loss", "val_loss") is None
    True
    """
    found = _pattern(template).fullmatch(key)
    return None if found is None else next(filter(None, found.groups()), "").lower()


def fnmatch_patterns(template: str) -> list[str]:
    """Shell patterns that match what the phased key matches, except for capitals and parts.

    >>> fnmatch_patterns("{test}_mse")
    ['test[_/.-]mse', 'mse[_/.-]test']
    """
    found = _TEMPLATE.fullmatch(template)
    if found is None:
        return [template]
    phase, name = found["phase"], found["name"]
    return [f"{phase}[_/.-]{name}", f"{name}[_/.-]{phase}"] if phase else [name]


def split_phase(key: str, phases: Iterable[str] = PHASES) -> tuple[str, str]:
    """Split a key into its phase, in small letters, and the rest; "" if it has no phase.

    >>> split_phase("train_loss"), split_phase("acc/Val"), split_phase("lr")
    (('train', 'loss'), ('val', 'acc'), ('', 'lr'))
    """
    for phase in phases:
        word = re.escape(phase)
        found = re.fullmatch(rf"{word}{_BETWEEN}(.+)|(.+){_BETWEEN}{word}", key, re.I | re.S)
        if found:
            return phase.lower(), found[1] or found[2]
    return "", key


@lru_cache(1024)
def _pattern(template: str) -> re.Pattern[str]:
    found = _TEMPLATE.fullmatch(template)
    if found is None:
        raise ValueError(f"{template!r} is no phased key")
    phase, name = map(re.escape, found.groups())
    if not phase:
        return re.compile(name + _PART, re.I)
    first = f"{phase}{_BETWEEN}{name}{_PART}"
    return re.compile(f"{first}|{name}{_PART}{_BETWEEN}{phase}{_PART}", re.I)
