"""The contract of a meter. Meters touch no file, clock, socket or random number."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.events import Reduction


class Meter(ABC):
    """Takes in values, and gives what is to be plotted.

    A meter is built once per key and definition, fed with `add` (the recorded value; a recorded
    tuple is spread over the arguments), read with `value` at every mark, and emptied with `reset`.
    What `add` is given are floats, strings and numpy arrays, never tensors, when flexrec calls;
    called by hand it takes tensors too. Arrays belong to the meter: nobody changes them later.

    `add` raises ValueError or TypeError for what it cannot take, leaving the meter as it was.
    """

    fields: tuple[str, ...] = ("value",)
    """The names of what `value` returns, in order; the first is drawn by default.

    Set on the class, or in the constructor where its arguments decide.
    """

    uses_time: ClassVar[bool] = False
    """Whether the meter wants `tick(time)` before every add, value and reset."""

    counts_only: ClassVar[bool] = False
    """Whether it is all the same to the meter what `add` is given."""

    reduction: Reduction | None = None
    """What it remembers of a value, so that this can be recorded in the value's place.

    Set on the class, or in the constructor where its arguments decide.
    """

    @abstractmethod
    def add(self, *args: Any) -> None:
        """Take in one recorded value."""

    @abstractmethod
    def value(self) -> Any:
        """One result where `fields` has one name, else a tuple in the order of `fields`."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything that was added."""

    def tick(self, time: float) -> None:  # noqa: B027 - most meters have no use for it
        """The time in seconds of the event that follows; called only if `uses_time`."""

    def add_all(self, values: NDArray[np.float64]) -> None:
        """`add` of each of these numbers, of which there are some, in order.

        A meter that takes them at once is then within 1e-12 relative of what `add` gives.
        """
        for value in values.tolist():
            self.add(value)

    def reduce_slices(
        self,
        values: NDArray[np.float64],  # noqa: ARG002 - for meters that can
        starts: NDArray[np.int64],  # noqa: ARG002
        stops: NDArray[np.int64],  # noqa: ARG002
    ) -> tuple[NDArray[np.float64], ...] | None:
        """The same meter over whole columns: one float64 array per field, or None: cannot.

        Entry k is what `value()` gives after a reset and an `add` of each of
        `values[starts[k]:stops[k]]`, within 1e-12 relative. Slices are never empty; starts and
        stops never decrease; slices may overlap. The meter's own state is neither used nor
        changed, only its constructor's arguments.
        """
        return None

    def merge(self, *state: Any) -> None:  # noqa: ARG002 - as above
        """What `add(*args)` does, to the bit, from what `reduction.state_of(*args)` gave."""
        raise TypeError(f"{type(self).__name__} has no state that could be merged")
