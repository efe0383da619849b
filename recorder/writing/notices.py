"""Warnings about recorded data: keys that grow large, and runs whose step never changes."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import counted
from flexrec.recorder.events import Array
from flexrec.recorder.storage import format as fmt

_MANY_BYTES = 1 << 30  # bytes of one key's tensors from which on to warn
_MANY_ADDS, _MANY_LOGS = 50, 3  # numbers at one step from which on to warn


class HeavyKeys:
    """Counts the bytes of arrays and strings of each key.

    Attributes:
        sizes: the sizes in bytes, by key.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, float] = {}

    def weigh(self, weights: Mapping[str, float], columns: Sequence[fmt.Column]) -> list[str]:
        """Add bytes by key; return a warning for each key that has now passed the limit."""
        said = list[str]()
        for key, size in weights.items():
            before = self.sizes.get(key, 0.0)
            self.sizes[key] = before + size
            if before <= _MANY_BYTES < before + size:
                said.append(_heavy(key, next(c.forms for c in reversed(columns) if c.key == key)))
        return said


def _heavy(key: str, forms: Sequence[fmt.Form]) -> str:
    meter = advice(key, forms)
    message = f"{key!r} has passed {_MANY_BYTES / (1 << 30):.3g} GiB of tensors"
    if not meter:
        return message
    return (
        f"{message}; if you need it for one meter only, record that meter's state instead, for "
        f'example with Recorder(…, reduce={{{key!r}: "{meter}"}})'
    )


def advice(key: str, forms: Sequence[fmt.Form]) -> str | None:
    """Guess the meter for which a key's arrays are recorded; None if there is no guess."""
    if key.endswith("/activations") or any(form.kind in (fmt.NUMBER, fmt.TEXT) for form in forms):
        return None
    ranks, kinds = [form.ndim for form in forms], [form.dtype.kind for form in forms]
    if len(forms) == 1:
        return "HistogramMeter"
    if len(forms) != 2 or kinds[0] != "f":
        return None
    if ranks == [2, 1] and kinds[1] in "iu":
        return "ClassErrorMeter"
    return "MSEMeter" if ranks[0] == ranks[1] and kinds[1] == "f" else None


class Places:
    """Checks whether a run's adds and logs have different steps and positions.

    If they do not, replay draws everything at one point.
    """

    def __init__(self) -> None:
        self._adds = dict[int, int]()  # the number of adds by signature
        self._step: int | None = None  # the step of all events so far, and the x of all logs
        self._logs, self._is_spread = 0, False

    def see(self, rows: Array, values: Array, is_training: NDArray[np.bool_]) -> None:
        """Count those events, in the file's layout, that are of the training.

        Args:
            values: their values, which begin with those of the first event.
        """
        if self._is_spread or not is_training.any():
            return
        first, rows = rows["start"][0], rows[is_training]
        codes, steps = rows["code"], rows["step"]
        logs = np.flatnonzero(codes == fmt.LOG)
        x = values[rows["start"][logs] - first] if len(logs) else np.empty(0)
        self._step = int(steps[0]) if self._step is None else self._step
        self._is_spread = bool((steps != self._step).any() or (x != self._step).any())
        self._logs += len(x)
        for code, count in zip(*np.unique(codes[codes >= 0], return_counts=True), strict=True):
            self._adds[int(code)] = self._adds.get(int(code), 0) + int(count)

    def notice(self) -> str | None:
        """The warning to give at the end; None if there is none."""
        most = max(self._adds.values(), default=0)
        if self._is_spread:
            return None
        if self._logs >= _MANY_LOGS:
            return (
                f"all {counted(self._logs, 'log')} are at x = {self._step}, one point of a plot: "
                "write rec.log(epoch), or rec.step() after each step"
            )
        if most >= _MANY_ADDS and not self._logs:
            return (
                f"{counted(most, 'add')} of the same keys are all at step {self._step}, and there "
                "is no log, so they make one point of a plot: write rec.step() after each step, "
                "or rec.add(…, step=n), and rec.log(epoch) wherever a point should be drawn"
            )
        return None
