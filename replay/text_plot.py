"""Two curves over each other and their difference below, in characters: for a terminal.

Of our own, in the few lines that it takes, rather than a library: a node of a cluster need not
install one, and the same curves give the same text.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["text_plot"]

Floats = NDArray[np.float64]

_MARGIN = 12  # characters for the numbers at the left
_BOTH = "*"


def text_plot(
    x: Sequence[Any],
    golden: Sequence[Any],
    obtained: Sequence[Any],
    *,
    width: int = 80,
    height: int = 12,
) -> str:
    """The curves as text.

        >>> print(text_plot([0, 1, 2], [0, 1, 2], [0, 1, 0], width=40, height=5))
        . golden   o obtained   * both
                 2 |                        ....
                   |                 .......
                 1 |           ******
                   |    *******      ooooooo
                 0 |****                    oooo
        obtained - golden
                 0 |+++++++++++++++++
                -1 |                 +++++++
                -2 |                        ++++
                    0                          2

    Args:
        x: positions (n,), in any order.
        golden, obtained: values (n,) each; None is a gap.
        width, height: characters, without the difference below.
    """
    order = np.argsort(np.array(x, np.float64), kind="stable")
    xs, a, b = (np.array(values, np.float64)[order] for values in (x, golden, obtained))
    with np.errstate(over="ignore", invalid="ignore"):
        difference = b - a
    upper = _canvas(xs, {".": a, "o": b}, width, height)
    lower = _canvas(xs, {"+": difference}, width, max(height // 2, 3))
    ends = f"{xs[0]:.6g}", f"{xs[-1]:.6g}"
    gap = max(width - _MARGIN - len(ends[0]) - len(ends[1]), 1)
    axis = f"{'':{_MARGIN}}{ends[0]}{'':{gap}}{ends[1]}"
    parts = [". golden   o obtained   * both", *upper, "obtained - golden", *lower, axis]
    return "\n".join(part.rstrip() for part in parts)


def _canvas(x: Floats, curves: dict[str, Floats], width: int, height: int) -> list[str]:
    """Lines of text, the numbers of the first, middle and last row at the left."""
    curves = {mark: np.where(np.isfinite(y), y, np.nan) for mark, y in curves.items()}
    finite = np.concatenate([y[np.isfinite(y)] for y in curves.values()])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    if low == high:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    columns = width - _MARGIN
    grid = np.full((height, columns), " ")
    for mark, y in curves.items():
        for column, (least, greatest) in enumerate(zip(*_envelope(x, y, columns), strict=True)):
            if least <= greatest:  # not a gap
                top, bottom = (
                    # halves, since the whole range may be beyond the floats
                    round((high / 2 - value / 2) / (high / 2 - low / 2) * (height - 1))
                    for value in (greatest, least)
                )
                cells = grid[top : bottom + 1, column]
                cells[:] = np.where(cells == " ", mark, _BOTH)
    part = (height // 2) / (height - 1)
    labels = {0: high, height // 2: high * (1 - part) + low * part, height - 1: low}
    return [
        f"{f'{labels[i]:.3g}' if i in labels else '':>{_MARGIN - 2}} |{''.join(row)}"
        for i, row in enumerate(grid.tolist())
    ]


def _envelope(x: Floats, y: Floats, columns: int) -> tuple[Floats, Floats]:
    """The least and greatest value in each column; NaN where there is a gap."""
    span = float(x[-1] - x[0]) or 1.0
    centres = x[0] + span * np.linspace(0.0, 1.0, columns)
    least = np.interp(centres, x, y)
    greatest = least.copy()
    at = np.rint((x - x[0]) / span * (columns - 1)).astype(np.intp)
    np.fmin.at(least, at, y)
    np.fmax.at(greatest, at, y)
    return least, greatest
