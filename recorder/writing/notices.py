"""What is worth a word about what was recorded: keys that grow large, and steps that never come."""

from collections.abc import Mapping, Sequence

import numpy as np

from flexrec.recorder.errors import counted
from flexrec.recorder.events import Array
from flexrec.recorder.storage import format as fmt

_MANY_BYTES = 1 << 30  # tensors of one key that are worth a word
_MANY_ADDS, _MANY_LOGS = 50, 3  # at one step that are worth a word


class HeavyKeys:
    """How many bytes of arrays and texts each key has.

    Attributes:
        sizes: in bytes, by key.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, float] = {}

    def weigh(self, weights: Mapping[str, float], columns: Sequence[fmt.Column]) -> list[str]:
        """Take in what more came; what to say, once, of keys that have become heavy by it."""
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
        f"{message}; where one meter is enough for it, record what that one remembers in their "
        f'place, as with Recorder(…, reduce={{{key!r}: "{meter}"}})'
    )


def advice(key: str, forms: Sequence[fmt.Form]) -> str | None:
    """The meter that is most likely enough for a key's arrays; None: there is none."""
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
    """Whether a run's adds and logs have different places: steps, and positions of logs.

    Where they have not, replay draws all of it at one point.
    """

    def __init__(self) -> None:
        self._adds = dict[int, int]()  # of each signature
        self._step: int | None = None  # of all events so far; logs were at it too
        self._logs, self._is_spread = 0, False

    def see(self, rows: Array, values: Array) -> None:
        """Take in events, as they are laid out in a file; `values` begin with the first's."""
        if self._is_spread or not len(rows):
            return
        codes, steps = rows["code"], rows["step"]
        logs = np.flatnonzero(codes == fmt.LOG)
        x = values[rows["start"][logs] - rows["start"][0]] if len(logs) else np.empty(0)
        self._step = int(steps[0]) if self._step is None else self._step
        self._is_spread = bool((steps != self._step).any() or (x != self._step).any())
        self._logs += len(x)
        for code, count in zip(*np.unique(codes[codes >= 0], return_counts=True), strict=True):
            self._adds[int(code)] = self._adds.get(int(code), 0) + int(count)

    def notice(self) -> str | None:
        """What to say of it at the end; None: nothing."""
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
                "is no log, so that they are one point of a plot: write rec.step() after each "
                "step, or rec.add(…, step=n), and rec.log(epoch) where a point is to be drawn"
            )
        return None
