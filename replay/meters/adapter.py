"""Other libraries' metrics as meters. No torch import: a metric that wants tensors has imported it.

torchmetrics and torcheval agree on the names update, compute and reset; so does this.
"""

import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from flexrec.recorder.errors import MeterError
from flexrec.recorder.events import array_of, is_tensor
from flexrec.replay.meters.base import Meter


class MetricMeter(Meter):
    """A torchmetrics metric, or anything with update, compute and reset, as a meter.

        >>> meter = MetricMeter(torchmetrics.MeanAbsoluteError())  # doctest: +SKIP
        >>> meter.add(np.array([1.0, 2.0]), np.array([1.0, 4.0]))  # doctest: +SKIP
        >>> meter.value()  # doctest: +SKIP
        1.0

    Takes what the metric's `update` takes. Numbers and arrays become tensors where the metric's
    module, or that of one of its base classes, imports torch; otherwise they stay.
    Gives what `compute` returns: a number, or an array; of a dict or tuple a tuple, whose names
    are in `fields` from then on (from the start for a torchmetrics.MetricCollection). None gives
    nan, without asking the metric. Memory: the metric's.

    Raises:
        MeterError: the metric raised; what it has kept of the values then is its own affair.
    """

    def __init__(self, metric: Any) -> None:
        if not is_metric(metric):
            raise TypeError(f"{type(metric).__name__} has no update, compute and reset")
        self.metric = metric
        self._torch = _torch_of(type(metric))
        if callable(getattr(metric, "keys", None)):
            self.fields = tuple(metric.keys())
        self._empty = True

    def reset(self) -> None:
        """Reset the metric."""
        self.metric.reset()
        self._empty = True

    def add(self, *args: Any) -> None:
        """Update the metric."""
        try:
            self.metric.update(*map(self._given, args))
        except Exception as error:
            raise MeterError(self._message(error)) from error
        self._empty = False

    def value(self) -> Any:
        """What the metric computes."""
        if self._empty:
            return math.nan if len(self.fields) == 1 else (math.nan,) * len(self.fields)
        try:
            result = self.metric.compute()
        except Exception as error:
            raise MeterError(self._message(error)) from error
        if isinstance(result, Mapping):
            self.fields = tuple(result)
            result = tuple(result.values())
        elif isinstance(result, (tuple, list)):
            self.fields = tuple(map(str, range(len(result))))
        else:
            return _taken(result)
        values = tuple(map(_taken, result))
        return values if len(values) > 1 else values[0]

    def _given(self, value: Any) -> Any:
        if self._torch is None or isinstance(value, str):
            return value
        return self._torch.as_tensor(value)

    def _message(self, error: Exception) -> str:
        return f"{type(self.metric).__name__}: {type(error).__name__}: {error}"


def is_metric(candidate: Any) -> bool:
    """Whether a class or an object has the methods update, compute and reset.

    >>> is_metric(dict)
    False
    """
    return all(callable(getattr(candidate, name, None)) for name in ("update", "compute", "reset"))


def _torch_of(kind: type) -> Any:
    """torch, where the module of the class or of a base class has imported it."""
    torch = sys.modules.get("torch")
    modules = (sys.modules.get(base.__module__) for base in kind.__mro__)
    uses = any(getattr(module, "torch", None) is torch for module in modules)
    return torch if torch is not None and uses else None


def _taken(result: Any) -> Any:
    """A result as a float or an array."""
    if is_tensor(result):
        result = array_of("result", result).copy()
    if isinstance(result, (np.ndarray, np.generic)) and result.ndim == 0:
        return float(result)
    return result
