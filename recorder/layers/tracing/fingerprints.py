"""Fingerprints of values that contain tensors, numbers and strings.

layers/measuring/measures.py defines the fingerprint of a tensor.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

from torch import Tensor

from flexrec.recorder.layers.measuring.measures import Fingerprint, chained, fingerprint, of_text

Look: TypeAlias = Callable[[Tensor], Fingerprint]
"""Computes the fingerprint of a tensor, as `fingerprint` does."""


def of_all(values: Any, look: Look = fingerprint) -> Fingerprint | None:
    """One fingerprint of all tensors, numbers and strings in a value; None if there are none.

    Args:
        values: tensors, numbers and strings in tuples, lists, dicts and dataclasses.
        look: computes the fingerprint of each tensor.
    """
    found: Fingerprint | None = None
    for value in leaves(values):
        each = look(value) if isinstance(value, Tensor) else of_text(repr(value))
        found = each if found is None else chained(found, each)
    return found


def leaves(values: Any) -> Iterator[Any]:
    """The tensors, numbers and strings in a value, in order."""
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
