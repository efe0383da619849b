"""The base class of meters. Meters use no files, clocks, sockets or random numbers."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.events import Reduction


class Meter(ABC):
    """Computes the value to plot from recorded values.

    A meter is built once per key and definition, fed with `add` (the recorded value; a recorded
    tuple is passed as several arguments), read with `value` at every mark, and emptied with
    `reset`. flexrec calls `add` with floats, strings and numpy arrays, never tensors; users may
    call it with tensors too. Arrays belong to the meter: the caller does not change them later.

    `add` raises ValueError or TypeError for values that it cannot take, and leaves the meter
    unchanged.
    """

    fields: tuple[str, ...] = ("value",)
    """The names of the results that `value` returns, in order; the first is drawn by default.

    Set on the class, or in the constructor if they depend on its arguments.
    """

    uses_time: ClassVar[bool] = False
    """Whether `tick(time)` is called before every add, value and reset."""

    counts_only: ClassVar[bool] = False
    """Whether the meter ignores the arguments of `add`."""

    centres: NDArray[np.float64] | None = None
    """Where the elements of the first result lie, such as the centres of bins; None: nowhere.

    Set in the constructor if they depend on its arguments.
    """

    reduction: Reduction | None = None
    """The reduction whose states can be recorded instead of the values; None: there is none.

    Set on the class, or in the constructor if it depends on its arguments.
    """

    @abstractmethod
    def add(self, *args: Any) -> None:
        """Add one recorded value."""

    @abstractmethod
    def value(self) -> Any:
        """The result: one value if `fields` has one name, else a tuple in the order of `fields`."""

    @abstractmethod
    def reset(self) -> None:
        """Discard everything that was added."""

    def tick(self, time: float) -> None:  # noqa: B027 - most meters ignore it
        """Set the time, in seconds, of the next event; called only if `uses_time`."""

    def add_all(self, values: NDArray[np.float64]) -> None:
        """Add each of these numbers, of which there is at least one, in order.

        A meter that adds them all at once stays within a relative 1e-12 of the result of `add`.
        """
        for value in values.tolist():
            self.add(value)

    def reduce_slices(
        self,
        values: NDArray[np.float64],  # noqa: ARG002 - for meters that can
        starts: NDArray[np.int64],  # noqa: ARG002
        stops: NDArray[np.int64],  # noqa: ARG002
    ) -> tuple[NDArray[np.float64], ...] | None:
        """Compute the results for slices of a column: a float64 array per field; None: unsupported.

        Entry k is the `value()` after a reset and an `add` of each of `values[starts[k]:stops[k]]`,
        within a relative 1e-12. Slices are never empty; starts and stops never decrease; slices may
        overlap. Only the constructor's arguments are used; the meter's state is neither read nor
        changed.
        """
        return None

    def merge(self, *state: Any) -> None:  # noqa: ARG002 - as above
        """Add a state of `reduction.state_of(*args)`: the same, to the bit, as `add(*args)`."""
        raise TypeError(f"{type(self).__name__} has no state that could be merged")
