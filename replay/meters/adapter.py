"""Use other libraries' metrics as meters. torch is not imported: metrics that need it import it.

torchmetrics and torcheval both name the methods update, compute and reset; so does this adapter.
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
    """A meter around a torchmetrics metric, or any object with update, compute and reset.

        >>> meter = MetricMeter(torchmetrics.MeanAbsoluteError())  # doctest: +SKIP
        >>> meter.add(np.array([1.0, 2.0]), np.array([1.0, 4.0]))  # doctest: +SKIP
        >>> meter.value()  # doctest: +SKIP
        1.0

    Takes the arguments of the metric's `update`. Numbers and arrays are converted to tensors if the
    metric's module, or that of one of its base classes, imports torch.
    Gives the result of `compute`: a number or an array; a dict or tuple becomes a tuple, whose
    names are then in `fields` (from the start for a torchmetrics.MetricCollection). Without values
    gives nan, and does not call the metric. Memory: the metric's.

    Raises:
        MeterError: the metric raised an error; whether it kept the values depends on the metric.
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
        """The metric's result."""
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
            return _as_part(result)
        values = tuple(map(_as_part, result))
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
    """The torch module, if the module of the class or of a base class imports it."""
    torch = sys.modules.get("torch")
    modules = (sys.modules.get(base.__module__) for base in kind.__mro__)
    uses = any(getattr(module, "torch", None) is torch for module in modules)
    return torch if torch is not None and uses else None


def _as_part(result: Any) -> Any:
    """Convert a result to a float or an array."""
    if is_tensor(result):
        result = array_of("result", result).copy()
    if isinstance(result, (np.ndarray, np.generic)) and result.ndim == 0:
        return float(result)
    return result
