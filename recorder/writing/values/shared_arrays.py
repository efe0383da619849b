"""Find arrays given under several keys of one add, which are recorded once.

Output and target are often the same for several meters: {"train_mse": (output, target),
"train_class": (output, target)}. Arrays are compared by identity, not by content.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from flexrec.recorder.events import State, is_tensor

Part = tuple[str, int]
"""A key of an add, and the index of a part of its value."""


class Sharing:
    """Finds parts that are the same object as an earlier part of the add.

    A pair of parts counts as shared only if it was shared in every add of these keys, so that a key
    has few columns.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], dict[Part, Part]] = {}

    def of(self, values: Mapping[str, object]) -> dict[Part, Part]:
        """Map each shared part to the earlier part that it is.

        Args:
            values: the add's values, without those that are reduced.
        """
        keys, found = tuple(values), _found(values.items())
        before = self._known.get(keys, found)
        self._known[keys] = shared = {
            part: owner for part, owner in before.items() if found.get(part) == owner
        }
        return shared


def _found(values: Iterable[tuple[str, object]]) -> dict[Part, Part]:
    first: dict[int, tuple[Part, Any]] = {}  # holds the objects, so that ids are not reused
    found: dict[Part, Part] = {}
    for key, value in values:
        parts: Any = value if isinstance(value, (tuple, list)) else (value,)
        for i, part in enumerate(() if isinstance(value, State) else parts):
            if (isinstance(part, np.ndarray) or is_tensor(part)) and part.ndim:
                owner, _ = first.setdefault(id(part), ((key, i), part))
                if owner[0] != key:
                    found[key, i] = owner
    return found
