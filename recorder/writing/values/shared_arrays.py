"""Arrays that are given under several keys of one add, which are recorded once.

Output and target are often the same for several meters: {"train_mse": (output, target),
"train_class": (output, target)}. They are known by what they are, not by what they hold.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from flexrec.recorder.events import State, is_tensor

Part = tuple[str, int]
"""A key of an add, and which part of its value."""


class Sharing:
    """Which parts are earlier ones of the same add.

    What adds of the same keys do not always share, they share no more: so a key has few columns.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], dict[Part, Part]] = {}

    def of(self, values: Mapping[str, object]) -> dict[Part, Part]:
        """Of each part that is shared, which earlier one it is.

        Args:
            values: those that are recorded as they are, of an add.
        """
        keys, found = tuple(values), _found(values.items())
        before = self._known.get(keys, found)
        self._known[keys] = shared = {
            part: owner for part, owner in before.items() if found.get(part) == owner
        }
        return shared


def _found(values: Iterable[tuple[str, object]]) -> dict[Part, Part]:
    first: dict[int, tuple[Part, Any]] = {}  # which are held meanwhile, so that no id comes again
    found: dict[Part, Part] = {}
    for key, value in values:
        parts: Any = value if isinstance(value, (tuple, list)) else (value,)
        for i, part in enumerate(() if isinstance(value, State) else parts):
            if (isinstance(part, np.ndarray) or is_tensor(part)) and part.ndim:
                owner, _ = first.setdefault(id(part), ((key, i), part))
                if owner[0] != key:
                    found[key, i] = owner
    return found
