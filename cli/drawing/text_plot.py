"""Draw curves as text, in characters that the output can show. Only this file imports uniplot."""

import math
import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from uniplot import plot_to_string

from flexrec.recorder.errors import one_line
from flexrec.replay.plots.colours import CYCLE

Floats: TypeAlias = NDArray[np.float64]
Values: TypeAlias = ArrayLike | Sequence[float | None]
Curve: TypeAlias = tuple[str, ArrayLike, Values]
"""Its name, its x (n,) and its values (n,); None, NaN and infinities are gaps."""

HEIGHT = 16
MARGIN = 16  # columns of the frame and the labels beside it
NARROW = 20  # minimum columns for the curves

MARKS = "+xo*~.#"  # to tell curves apart without colours
_FRAME = str.maketrans("┌┐└┘│─▁▔", "++++|-_-")
_LABEL = re.compile(r"(?<=│ )(-?[\d,.]+)(e-?\d+)$", re.MULTILINE)
_PLAIN = range(-4, 9)  # powers of ten whose x are written without an exponent


def text_plot(
    title: str,
    curves: Sequence[Curve],
    *,
    marks: str = MARKS[:6],
    height: int = HEIGHT,
    is_log: bool = False,
) -> str:
    """Draw the curves in one plot, as wide as the terminal, with their names below.

    A terminal shows them in colours. Without colours (a pipe, NO_COLOR) each curve has a character
    of its own, and if there are more curves than `marks`, several plots are drawn.

    Args:
        title: the heading.
        curves: those without a finite value are left out.
        marks: a character for each curve, used without colours.
        height: lines of the plot, without the heading and the names.
        is_log: whether to make the y axis logarithmic, if all values allow it.
    """
    finite = [(name, *_finite(x, y)) for name, x, y in curves]
    finite = [(name, x, y) for name, x, y in finite if np.isfinite(y).any()]
    if not finite:
        return one_line(f"{title}: no finite values")
    is_log = is_log and all(np.nanmin(y) > 0 for _, _, y in finite)
    size = len(finite) if _has_colours() else len(marks)
    groups = [finite[i : i + size] for i in range(0, len(finite), size)]
    return "\n".join(_graph(title, group, marks, height, is_log) for group in groups)


def _graph(
    title: str, curves: Sequence[tuple[str, Floats, Floats]], marks: str, height: int, is_log: bool
) -> str:
    columns = shutil.get_terminal_size((80, 24)).columns
    has_colours, has_braille = _has_colours(), _has_braille()
    names, xs, ys = map(list, zip(*curves, strict=True))
    ys = [np.log10(y) for y in ys] if is_log else ys
    x_power, y_power = _power(xs, 0), _power(ys, 3)
    x_power = 0 if x_power in _PLAIN else x_power
    text: str = plot_to_string(
        xs=[_scaled(x, x_power) for x in xs],
        ys=[_scaled(y, y_power) for y in ys],
        lines=True,
        width=max(NARROW, columns - MARGIN),
        line_length_hard_cap=max(NARROW + MARGIN, columns),
        height=height,
        title=one_line(title),
        legend_labels=[one_line(name) for name in names],
        color=_colours() if has_colours else False,
        character_set="braille" if has_braille and (has_colours or len(xs) == 1) else "ascii",
        force_ascii_characters=list(marks),
        x_gridlines=[],
        y_gridlines=[] if is_log else [0],
        x_unit=f"e{x_power}" if x_power else "",
        y_unit=f"e{y_power}",
    )
    text = _LABEL.sub(lambda label: _number(label, is_log), text)
    return text if has_braille else text.translate(_FRAME)


def _finite(x: ArrayLike, y: Values) -> tuple[Floats, Floats]:
    values = np.asarray(y, np.float64)
    return np.asarray(x, np.float64), np.where(np.isfinite(values), values, np.nan)


def _power(every: Sequence[Floats], digits: int) -> int:
    """The power of ten that leaves `digits` digits before the point of the values' range.

    uniplot fails if the range overflows a float, writes all digits of a large number, and rounds
    0.5 to 0 even if two labels differ only by that: its labels must be short whole numbers.
    """
    low = min(float(np.nanmin(values)) for values in every)
    high = max(float(np.nanmax(values)) for values in every)
    largest = max(-low, high)
    size = largest if low == high else max(high - low, largest * 1e-12)
    return math.floor(math.log10(min(size, sys.float_info.max))) - digits if size else -digits


def _scaled(values: Floats, power: int) -> Floats:
    half = power // 2  # 10**-324 is no float
    scaled: Floats = values / 10.0**half / 10.0 ** (power - half)
    return scaled


def _number(label: re.Match[str], is_log: bool) -> str:
    """A label of the y axis, its power of ten written into the number."""
    value = float(label[1].replace(",", "") + label[2])
    if not is_log:
        return f"{value:.12g}"
    return f"{10**value:.3g}" if abs(value) < 300 else f"10^{value:.4g}"


def _has_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _colours() -> bool | list[tuple[int, ...]]:
    """Those of the other plots, if the terminal says that it has them; else its own."""
    return list(CYCLE) if os.environ.get("COLORTERM") in ("truecolor", "24bit") else True


def _has_braille() -> bool:
    """Whether the output can show uniplot's own characters."""
    try:
        "\u2801\u250c".encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
