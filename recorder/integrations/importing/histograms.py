"""Other tools' histograms as HistogramMeter counts; the values themselves are gone."""

from typing import Any

import numpy as np

from flexrec.recorder.events import State
from flexrec.recorder.reduction.reductions import Bins

_BINS = Bins()


def histogram_state(left: Any, right: Any, counts: Any) -> State:
    """The state of HistogramMeter for buckets (N,), each with its values in its middle.

    Raises:
        ValueError, TypeError: these are not the edges and counts of buckets.
    """
    low, high, weights = (np.asarray(each, np.float64) for each in (left, right, counts))
    middles = low / 2 + high / 2
    if not middles.ndim == weights.ndim == 1 or len(middles) != len(weights):
        raise ValueError(f"{len(middles)} buckets have {len(weights)} counts")
    if not (np.isfinite(middles).all() and np.isfinite(weights).all()):
        raise ValueError("a bucket or a count is not finite")
    return State(_BINS.state_of_counts(middles, weights), _BINS)
