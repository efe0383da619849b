"""Place the ticks of axes: at whole numbers, or at decades of a logarithmic axis."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEW = 10  # most whole numbers that each get a tick
_LABELS = 8  # most decades that each get a tick


def set_ticks(
    layout: dict[str, Any], axis: str, values: NDArray[np.float64], opts: dict[str, Any]
) -> None:
    """Set the ticks of an axis, `x` or `y`, in plotly's layout, unless the opts set them.

    Args:
        layout: plotly's layout, which is changed.
        axis: the axis, `x` or `y`.
        values: (n,), all values that are drawn along it.
        opts: visdom's opts of the window.
    """
    if {f"{axis}tickvals", f"{axis}tickstep", f"{axis}tickmin"} & set(opts):
        return
    finite = values[np.isfinite(values)]
    if opts.get(f"{axis}type") == "log":
        made = layout.setdefault(f"{axis}axis", {})
        made["exponentformat"] = "power"  # powers, not unit prefixes such as m, n, G
        made |= _decades(finite[finite > 0])
    elif axis == "x" and opts.get("xtype") in (None, "linear", "-") and _are_few(finite):
        layout.setdefault("xaxis", {})["dtick"] = 1


def _are_few(values: NDArray[np.float64]) -> bool:
    """Whether the values are whole numbers within a small range."""
    return bool(len(values) and (values == np.floor(values)).all() and np.ptp(values) <= _FEW)


def _decades(values: NDArray[np.float64]) -> dict[str, Any]:
    """Ticks at powers of ten; if fewer than two lie among the values, at 2 and 5 times them too."""
    if not len(values):
        return {}
    low, high = math.log10(values.min()), math.log10(values.max())
    inside = math.floor(high) - math.ceil(low) + 1
    if inside >= 2:
        return {"dtick": math.ceil(inside / _LABELS)}
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
