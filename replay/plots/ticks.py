"""Axes: ticks at whole numbers or decades, and an axis that is logarithmic on both sides of 0."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

_FEW = 10  # most whole numbers that each get a tick
_DATES = 4  # about the most dates along an axis
_LABELS = 8  # most decades that each get a tick
_ROUNDING = 1e-9
_LEAST, _SYMMETRIC = 3, 10  # fewest and about the most ticks of a symmetric-log axis


def set_ticks(
    layout: dict[str, Any],
    axis: str,
    values: Floats,
    opts: dict[str, Any],
    *,
    are_counts: bool = False,
) -> None:
    """Set the ticks of an axis, `x` or `y`, in plotly's layout, unless the opts set them.

    Args:
        layout: plotly's layout, which is changed.
        axis: the axis, `x` or `y`.
        values: (n,), all values that are drawn along it.
        opts: visdom's opts of the window.
        are_counts: whether few whole numbers get a tick each on the y axis too.
    """
    if {f"{axis}tickvals", f"{axis}tickstep", f"{axis}tickmin"} & set(opts):
        return
    finite = values[np.isfinite(values)]
    if opts.get(f"{axis}type") == "log":
        made = layout.setdefault(f"{axis}axis", {})
        made["exponentformat"] = "power"  # powers, not unit prefixes such as m, n, G
        made |= _decades(finite[finite > 0])
    elif opts.get(f"{axis}type") == "date":  # dates are wide: few of them, and upright
        made = layout.setdefault(f"{axis}axis", {})
        made |= {"nticks": _DATES, "tickangle": 0, "automargin": True, **made}
    elif axis == "x" or are_counts:
        is_linear = opts.get(f"{axis}type") in (None, "linear", "-")
        if is_linear and _are_few(finite):
            layout.setdefault(f"{axis}axis", {})["dtick"] = 1


def _are_few(values: Floats) -> bool:
    """Whether the values are whole numbers within a small range."""
    return bool(len(values) and (values == np.floor(values)).all() and np.ptp(values) <= _FEW)


def _decades(values: Floats) -> dict[str, Any]:
    """Ticks at powers of ten; if fewer than two lie among the values, at 2 and 5 times them too.

    Without values there are no labels: they would be those of marks for zeros.
    """
    if not len(values):
        return {"dtick": 1, "showticklabels": False}
    low, high = math.log10(values.min()), math.log10(values.max())
    inside = math.floor(high) - math.ceil(low) + 1
    if inside >= 2:
        return {"dtick": math.ceil(inside / _LABELS)}
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def power_texts(ticks: Sequence[float]) -> list[str]:
    """The labels of ticks of logarithmic axes: as powers of ten if some are very large or small.

    >>> power_texts([0.01, 1.0]), power_texts([2e-5, 1.0])
    (['0.01', '1'], ['2×10⁻⁵', '10⁰'])
    """
    if not ticks or (min(ticks) >= 1e-3 and max(ticks) < 1e5):
        return [f"{tick:g}" for tick in ticks]
    parts = [f"{tick:.1e}".split("e") for tick in ticks]
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    powers = [f"10{str(int(power)).translate(raised)}" for _, power in parts]
    digits = [float(digits) for digits, _ in parts]
    return [p if d == 1 else f"{d:g}×{p}" for d, p in zip(digits, powers, strict=True)]


class SymmetricLog:
    """An axis that is linear near 0 and logarithmic beyond, for values of both signs.

    plotly has no such axis: a value v is drawn at sign(v) * log10(1 + |v| / unit), and the ticks
    are labelled with the values.

    Args:
        typical: values of a typical size. The unit is the power of ten below their median.
    """

    def __init__(self, typical: Floats) -> None:
        sizes = np.abs(typical[np.isfinite(typical) & (typical != 0)])
        self._power = math.floor(math.log10(np.median(sizes))) if len(sizes) else 0

    @property
    def unit(self) -> float:
        """The size below which the axis is about linear."""
        return float(f"1e{self._power}")

    def places(self, values: Floats) -> Floats:
        """Where the values are drawn; NaN and infinities are NaN."""
        known = np.where(np.isfinite(values), values, 0.0)
        with np.errstate(divide="ignore"):  # of 0
            powers = np.log10(np.abs(known)) - self._power
        places = np.sign(known) * np.logaddexp(0.0, powers * math.log(10)) / math.log(10)
        return np.where(np.isfinite(values), places, np.nan)

    def ticks(self, values: Floats) -> dict[str, Any]:
        """Ticks for these values, in plotly's layout, with room between them: at 0, at powers of
        ten, and at 2 and 5 times them; at round numbers if few of these lie among the values."""
        finite = values[np.isfinite(values)]
        if not len(finite):
            return {}
        low, high = float(finite.min()), float(finite.max())
        room = float(np.diff(self.places(np.array([low, high])))[0]) / _SYMMETRIC
        chosen = np.zeros(0)
        for tick in self._candidates(low, high):
            if (np.abs(self.places(chosen) - self.places(np.array([tick]))) >= room).all():
                chosen = np.append(chosen, tick)
        chosen = np.sort(chosen) if len(chosen) >= _LEAST else _round_numbers(low, high)
        return {
            "tickmode": "array",
            "tickvals": self.places(chosen).tolist(),
            "ticktext": [f"{tick:.6g}" for tick in chosen],
        }

    def _candidates(self, low: float, high: float) -> list[float]:
        """Possible ticks, the most important first."""
        largest = max(-low, high)
        last = math.floor(math.log10(largest)) if largest > 0 else self._power
        powers = range(last, min(last, self._power) - 1, -1)
        sizes = [float(f"{digit}e{power}") for digit in (1, 2, 5) for power in powers]
        both = [0.0, *(sign * size for size in sizes for sign in (1, -1))]
        return [tick for tick in both if low <= tick <= high]


def _round_numbers(low: float, high: float) -> Floats:
    """About five round numbers from low to high."""
    if not 0 < high - low < math.inf:
        return np.array([low])
    power = math.floor(math.log10((high - low) / 4))
    steps = [float(f"{digit}e{power}") for digit in (1, 2, 5, 10)]
    step = next(step for step in steps if step * 4.5 >= high - low)
    first, last = (low / step, high / step)
    count = np.arange(math.ceil(first - _ROUNDING), math.floor(last + _ROUNDING) + 1)
    return step * count.astype(np.float64)
