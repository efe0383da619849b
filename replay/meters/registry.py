"""Find meters by name, dotted path, class or metric, and describe them."""

import copy
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

from flexrec.recorder.errors import DefinitionError, nearest
from flexrec.replay.meters.adapter import MetricMeter, is_metric
from flexrec.replay.meters.averages import AverageValueMeter, MovingAverageValueMeter
from flexrec.replay.meters.base import Meter
from flexrec.replay.meters.classes import ClassErrorMeter, ConfusionMeter
from flexrec.replay.meters.histogram import HistogramMeter
from flexrec.replay.meters.information import InformationMeter
from flexrec.replay.meters.media import ImageMeter, TextMeter
from flexrec.replay.meters.ranking import APMeter, AUCMeter, mAPMeter
from flexrec.replay.meters.single import BestValueMeter, LastValueMeter, TimeMeter
from flexrec.replay.meters.squared import MSEMeter

Factory: TypeAlias = Callable[..., Meter]

_METERS: dict[str, type[Meter]] = {
    meter.__name__: meter
    for meter in (
        APMeter,
        AUCMeter,
        AverageValueMeter,
        BestValueMeter,
        ClassErrorMeter,
        ConfusionMeter,
        HistogramMeter,
        ImageMeter,
        InformationMeter,
        LastValueMeter,
        MSEMeter,
        MovingAverageValueMeter,
        TextMeter,
        TimeMeter,
        mAPMeter,
    )
}
_FOLDED = {name.lower(): meter for name, meter in _METERS.items()}


@overload
def meter_types() -> list[str]: ...
@overload
def meter_types(name: str) -> str: ...
def meter_types(name: str | None = None) -> list[str] | str:
    """The names of all meters, in alphabetical order; given a name, the same as `meter_info`.

    >>> meter_types()[:2]
    ['APMeter', 'AUCMeter']
    """
    return sorted(_METERS, key=str.lower) if name is None else meter_info(name)


def meter_info(name: str) -> str:
    """Describe a meter, by its name in any letter case: constructor, fields and documentation.

        >>> print(meter_info("msemeter").splitlines()[0])
        MSEMeter(root: bool = False)

    Raises:
        DefinitionError: there is no such meter; the message gives the nearest name.
    """
    meter = _named(name)
    heading = meter.__name__ + _signature(meter)
    return f"{heading}\nfields: {', '.join(meter.fields)}\n\n{inspect.getdoc(meter)}"


def resolve(type: Any) -> Factory:  # noqa: A002 - as in definitions
    """Find the class or function that builds the meter of a definition's `type`.

        >>> resolve("averagevaluemeter").__name__
        'AverageValueMeter'

    Args:
        type: a name of `meter_types()` in any letter case; the dotted path of a class,
            `"package.module.Class"`; a class derived from Meter; or a metric, class or object,
            with `update`, `compute` and `reset`, as in torchmetrics: each meter copies an object.

    Raises:
        DefinitionError: it is none of these; the message names the nearest meter.
    """
    if isinstance(type, str):
        type = _imported(type) if "." in type else _named(type)  # noqa: A001
    if isinstance(type, _MetricFactory) or (inspect.isclass(type) and issubclass(type, Meter)):
        return type
    if is_metric(type):
        return _MetricFactory(type)
    came = type.__name__ if inspect.isclass(type) else f"{type!r:.40}"
    raise DefinitionError(
        f"{came} is no meter: a meter is a name (flexrec meters lists them), the dotted path of "
        "a class, a class derived from Meter, or a metric with update, compute and reset"
    )


def build(type: Any, args: Mapping[str, Any]) -> Meter:  # noqa: A002 - as in definitions
    """Build a meter of a type that `resolve` accepts.

        >>> build("ConfusionMeter", {"k": 3}).value().shape
        (3, 3)

    Args:
        type: see `resolve`.
        args: the arguments of its constructor, by name.

    Raises:
        DefinitionError: see `resolve`; or an argument is unknown, missing or wrong: the message
            names the meter, the argument and what is accepted.
    """
    factory = resolve(type)
    name, accepted = factory.__name__, _signature(factory)
    _check(name, accepted, factory, args)
    try:
        return factory(**args)
    except (TypeError, ValueError) as error:
        problem = str(error).rstrip(".")
        raise DefinitionError(f"{name}: {problem}; it is {name}{accepted}") from None


@dataclass(frozen=True)
class _MetricFactory:
    """Builds meters around a metric, given as a class or as an object to copy."""

    metric: Any

    @property
    def __name__(self) -> str:
        return str((self.metric if inspect.isclass(self.metric) else type(self.metric)).__name__)

    @property
    def __signature__(self) -> inspect.Signature:
        if inspect.isclass(self.metric):
            return inspect.signature(self.metric)
        return inspect.Signature()

    def __call__(self, **args: Any) -> Meter:
        if inspect.isclass(self.metric):
            return MetricMeter(self.metric(**args))
        metric = copy.deepcopy(self.metric)
        metric.reset()
        return MetricMeter(metric)


def _named(name: str) -> type[Meter]:
    found = _FOLDED.get(name.strip().lower())
    if found is None:
        raise DefinitionError(
            f"no meter {name!r}{nearest(name, _METERS)} (flexrec meters lists them)"
        )
    return found


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError:
        known = nearest(name, dir(importlib.import_module(module)))
        raise DefinitionError(f"module {module!r} has no {name!r}{known}") from None
    except (ImportError, TypeError, ValueError) as error:
        raise DefinitionError(f"cannot import {path!r}: {error}") from None


def _signature(factory: Factory) -> str:
    try:
        return str(inspect.signature(factory)).removesuffix(" -> None")
    except (TypeError, ValueError):  # a constructor written in C
        return "(…)"


def _check(name: str, accepted: str, factory: Factory, args: Mapping[str, Any]) -> None:
    """Raise DefinitionError for unknown or missing arguments of the constructor."""
    if accepted == "(…)":
        return
    parameters = inspect.signature(factory).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for arg in args:
            if arg not in parameters:
                hint = nearest(str(arg), parameters)
                raise DefinitionError(
                    f"{name} has no argument {arg!r}{hint}; it is {name}{accepted}"
                )
    for arg, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if required and arg not in args:
            raise DefinitionError(f"{name} needs the argument {arg!r}; it is {name}{accepted}")
