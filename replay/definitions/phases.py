"""Phases in keys: train, val, test, … before or after a metric's name. No definitions here.

A meter's key `{train}_loss` stands for every way of writing it: `train_loss`, `loss/train`,
`train.loss`, `Loss-Train`, Lightning's `train_loss_step`. `{}_loss` is a bare `loss`.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

PHASES = ("train", "val", "valid", "validation", "test", "eval")
"""The phases that are looked for where none are named."""

_TEMPLATE = re.compile(r"\{(?P<phase>[^{}]*)\}_(?P<name>.+)")
_BETWEEN = r"[_/.\-]"
_PART = rf"(?:{_BETWEEN}(step|epoch))?"  # of Lightning's, which logs a value twice


def is_phased(key: str) -> bool:
    """Whether a meter's key says `{phase}_name`."""
    return _TEMPLATE.fullmatch(key) is not None


def metric_of(key: str) -> str:
    """The name in a phased key.

    >>> metric_of("{train}_loss")
    'loss'
    """
    found = _TEMPLATE.fullmatch(key)
    return found["name"] if found else key


def written(key: str) -> str:
    """The phased key as it is mostly written; other keys as they are.

    >>> written("{train}_loss"), written("{}_loss")
    ('train_loss', 'loss')
    """
    found = _TEMPLATE.fullmatch(key)
    return f"{found['phase']}_{found['name']}".removeprefix("_") if found else key


def part_of(template: str, key: str) -> str | None:
    """Which part the recorded key is of the phased one: "", "step" or "epoch"; None: of none.

    >>> part_of("{train}_loss", "train_loss_step"), part_of("{train}_loss", "Loss/train")
    ('step', '')
    >>> part_of("{train}_loss", "val_loss") is None
    True
    """
    found = _pattern(template).fullmatch(key)
    return None if found is None else next(filter(None, found.groups()), "").lower()


def fnmatch_patterns(template: str) -> list[str]:
    """Shell patterns that together fit what the phased key fits, but for capitals and parts.

    >>> fnmatch_patterns("{test}_mse")
    ['test[_/.-]mse', 'mse[_/.-]test']
    """
    found = _TEMPLATE.fullmatch(template)
    if found is None:
        return [template]
    phase, name = found["phase"], found["name"]
    return [f"{phase}[_/.-]{name}", f"{name}[_/.-]{phase}"] if phase else [name]


def split_phase(key: str, phases: Iterable[str] = PHASES) -> tuple[str, str]:
    """The phase that begins or ends a key, in small letters, and the rest; "" where there is none.

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
