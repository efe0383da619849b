"""Reduce the number of points for the browser, keeping peaks. No drawing and no visdom."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flexrec.recorder.errors import DefinitionError
from flexrec.replay.plots.registry import plot_type
from flexrec.replay.plots.window import Trace, Window

_FEWEST = 7
"""The points kept of one bucket, with the first, the last, and a gap between any two."""


def thin(x: ArrayLike, y: ArrayLike, max_points: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Keep at most `max_points` of the points, those that give the line its shape.

        >>> x, y = thin(range(1000), [0.0] * 500 + [9.0] + [0.0] * 499, 10)
        >>> len(x) <= 10, 500 in x
        (True, True)

    The points between the first and the last are split into buckets of equal length; the minimum
    and the maximum of each are kept. If there is a value that is not finite between two kept
    points, it is kept too, so that no line is drawn across a gap. The first and the last point and
    the order are always kept; nothing is averaged or moved. Up to `max_points` points are returned
    unchanged.

    Args:
        x: positions (n,), in any order.
        y: values (n,); NaN and infinities are gaps.
        max_points: the limit; 0 keeps everything; less than 7 counts as 7.

    Returns:
        x and y of the points kept, in their order, with their dtypes.

    Raises:
        DefinitionError: max_points is negative, or x and y are not two vectors of equal length.
    """
    x, y = np.asarray(x), np.asarray(y)
    if max_points < 0:
        raise DefinitionError(
            f"max_points must be at least 0, got {max_points}; 0 keeps all points"
        )
    if x.ndim != 1 or x.shape != y.shape:
        raise DefinitionError(f"x and y are vectors of one length, not {x.shape} and {y.shape}")
    bound = max(max_points, _FEWEST)
    if max_points == 0 or len(y) <= bound:
        return x, y
    values, buckets = y.astype(np.float64), (bound - 2) // 2
    while len(kept := _shape_giving(values, buckets)) > bound:  # there are too many gaps
        buckets = max(1, min(buckets - 1, buckets * bound // len(kept)))
    return x[kept], y[kept]


def thin_window(window: Window, max_points: int) -> Window:
    """Thin a window of lines, dots, stems, fans or heat; other types are returned unchanged.

    Raises:
        DefinitionError: as in `thin`; or there is no such plot type.
    """
    history = plot_type(window.type).history
    if history is not None and history.is_joint:
        return replace(window, traces=_thin_jointly(window.traces, max_points))
    if history is None or not history.is_curve:
        return window
    traces = []
    for trace in window.traces:
        x = np.arange(len(trace.y)) if trace.x is None else np.asarray(trace.x)
        kept, y = thin(np.arange(len(x)), trace.y, max_points)
        band = trace.band and (np.asarray(trace.band[0])[kept], np.asarray(trace.band[1])[kept])
        traces.append(replace(trace, x=x[kept], y=y, band=band))
    return replace(window, traces=tuple(traces))


def _thin_jointly(traces: Sequence[Trace], max_points: int) -> tuple[Trace, ...]:
    """Keep the marks at which the largest values of all traces give the line its shape."""
    xs = [np.arange(np.shape(t.y)[-1]) if t.x is None else np.asarray(t.x) for t in traces]
    every = np.unique(np.concatenate(xs))
    sizes = np.full(len(every), np.nan)
    for trace, x in zip(traces, xs, strict=True):
        rows = np.abs(np.atleast_2d(np.asarray(trace.y, np.float64)))
        np.fmax.at(sizes, np.searchsorted(every, x), np.fmax.reduce(rows))
    kept, _ = thin(every, sizes, max_points)
    if len(kept) == len(every):
        return tuple(traces)
    masks = [np.isin(x, kept) for x in xs]
    return tuple(
        replace(trace, x=x[mask], y=np.asarray(trace.y)[..., mask])
        for trace, x, mask in zip(traces, xs, masks, strict=True)
    )


def _shape_giving(y: NDArray[np.float64], buckets: int) -> NDArray[np.intp]:
    """The indices to keep, in order: at most 2 per bucket, the first, the last, and gaps."""
    gaps = ~np.isfinite(y)
    inner = len(y) - 2
    width = -(-inner // buckets)
    rows = -(-inner // width)

    def in_buckets(values: NDArray[np.float64], filler: float) -> NDArray[np.float64]:
        padded = np.full(rows * width, filler)
        padded[:inner] = values[1:-1]
        return padded.reshape(rows, width)

    # A bucket's own values come before its filler, so argmin and argmax never choose filler.
    first = 1 + width * np.arange(rows)
    least = first + in_buckets(np.where(gaps, np.inf, y), np.inf).argmin(axis=1)
    greatest = first + in_buckets(np.where(gaps, -np.inf, y), -np.inf).argmax(axis=1)
    kept = np.unique(np.concatenate(([0], least, greatest, [len(y) - 1])))
    return kept if not gaps.any() else np.union1d(kept, _between(kept, gaps))


def _between(kept: NDArray[np.intp], gaps: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The first gap between each two kept neighbours, unless one of them is a gap itself."""
    places = np.flatnonzero(gaps)
    following = np.searchsorted(places, kept[:-1])
    after = np.append(places, len(gaps))[following]
    return after[(after < kept[1:]) & ~gaps[kept[:-1]] & ~gaps[kept[1:]]]
