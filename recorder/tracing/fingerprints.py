"""Fingerprints of values that hold tensors, numbers and texts.

What a tensor's is, is in measures.py of the layers.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

from torch import Tensor

from flexrec.recorder.layers.measures import Fingerprint, chained, fingerprint, of_text

Look: TypeAlias = Callable[[Tensor], Fingerprint]
"""Gives the fingerprint of a tensor, as `fingerprint` does."""


def of_all(values: Any, look: Look = fingerprint) -> Fingerprint | None:
    """One fingerprint of all tensors, numbers and texts in a value; None: there are none.

    Args:
        values: tensors, numbers and texts in tuples, lists, dicts and dataclasses.
        look: gives the fingerprint of each tensor.
    """
    found: Fingerprint | None = None
    for value in leaves(values):
        each = look(value) if isinstance(value, Tensor) else of_text(repr(value))
        found = each if found is None else chained(found, each)
    return found


def leaves(values: Any) -> Iterator[Any]:
    """The tensors, numbers and texts in a value, in order."""
    if isinstance(values, (Tensor, bool, int, float, str)):
        yield values
        return
    inside: Iterable[Any] = ()
    if isinstance(values, dict):
        inside = values.values()
    elif isinstance(values, (list, tuple)):
        inside = values
    elif is_dataclass(values) and not isinstance(values, type):
        inside = (getattr(values, field.name, None) for field in fields(values))
    for value in inside:
        yield from leaves(value)
