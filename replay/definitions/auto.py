"""The preset `auto`: choose plots and meters for keys that no definition takes.

In: a value of each key. Out: Definitions. Numbers are plotted by name, the phases of a name in one
plot; pairs by their name or their shapes; layers as in the preset `health`.
"""

import glob
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from flexrec.recorder.events import State, Value
from flexrec.recorder.files.names import CONSOLE, SYSTEM, is_around, is_fingerprint
from flexrec.recorder.layers.tracing import format as trace
from flexrec.replay.definitions.definitions import (
    Auto,
    Definitions,
    MeterDefinition,
    PlotDefinition,
)
from flexrec.replay.definitions.phases import split_phase
from flexrec.replay.definitions.presets import FEW_LAYERS, preset

_LAYER = re.compile(
    r".+/((?:grad_in|grad_out|grad_weights|inputs|outputs|weights|updates|state|forward|backward)"
    r"/\w+|step/share|activations)",
    re.S,
)
_STEPS = re.compile(r"(.+)[_/.\-](step|epoch)", re.I | re.S)
_FALLBACK = ("grads", "activations", "weights")  # presets of sources that health does not draw
_FEW = 20  # most classes for which a confusion matrix is drawn by default
_SHORT = 10  # most components of a vector that are drawn as lines
_CONFUSION = {"xlabel": "predicted", "ylabel": "true", "numbers": True, "xmin": 0, "xmax": 1}
_TITLES = {
    "lr": "Learning rate",
    "acc": "Accuracy",
    "err": "Error",
    "mse": "MSE",
    "auc": "AUC",
    "map": "mAP",
}
_RATE = re.compile(r"(.*[_/.\-])?(lr|learning_rate)([_/.\-].*)?", re.I | re.S)


class _Look(NamedTuple):
    """How to draw a key: the meter, the plot type, and words after the key in the plot's name."""

    meter: str
    plot: str = "line"
    words: str = ""
    args: Mapping[str, Any] = {}
    opts: Mapping[str, Any] = {}
    field: str | None = None
    alone: bool = False  # whether each key has its own window


_BY_NAME = {
    "mse": _Look("MSEMeter"),
    "acc": _Look("ClassErrorMeter", args={"accuracy": True}, opts={"ylabel": "percent"}),
    "accuracy": _Look("ClassErrorMeter", args={"accuracy": True}, opts={"ylabel": "percent"}),
    "err": _Look("ClassErrorMeter", opts={"ylabel": "percent"}),
    "error": _Look("ClassErrorMeter", opts={"ylabel": "percent"}),
    "auc": _Look("AUCMeter"),
    "map": _Look("mAPMeter"),
    "confusion": _Look(
        "ConfusionMeter", "heatmap", args={"normalized": True}, opts=_CONFUSION, alone=True
    ),
}
_TRAIN = "train"
_ACCURACY = _BY_NAME["acc"]._replace(words="accuracy")
_MATRIX = _BY_NAME["confusion"]._replace(words="confusion")
_ORDER = ("line", "heatmap", "histogram", "histograms", "image", "images", "text")


def auto_definitions(values: Mapping[str, Value | None], auto: Auto) -> Definitions:
    """Choose plots and meters for keys, from one value of each.

        >>> found = auto_definitions({"train_loss": 0.5, "val_loss": 0.7, "lr": 0.1}, Auto())
        >>> found.by_plot()
        {'loss': ['train_loss', 'val_loss'], 'lr': ['lr']}

    A key without a value, or with one that no meter takes, is left out, and so are a trace and
    fingerprints.
    """
    values = {
        key: value
        for key, value in values.items()
        if key not in trace.KEYS and not is_fingerprint(key)
    }
    around = {key: value for key, value in values.items() if is_around(key)}
    values = {key: value for key, value in values.items() if key not in around}
    layers = [key for key in values if _LAYER.fullmatch(key)]
    plots, meters = dict[str, PlotDefinition](), dict[str, MeterDefinition]()
    names = _names([key for key in values if key not in layers], auto.phases)
    for key, (phase, name, part) in names.items():
        value = values[key]
        for look in () if value is None else _looks(name, value):
            title = f"{name} {look.words}".strip()
            label = " ".join(filter(None, (phase, part)))
            of_key = f"{title}, {label}" if look.alone and label else title
            shown = _TITLES.get(of_key.lower(), of_key[:1].upper() + of_key[1:])
            # As in presets, Loss/train and val_loss are one metric, also in different runs.
            plot = _free(of_key if look.alone else of_key.lower(), look.plot, plots)
            definition = PlotDefinition(plot, look.plot, {"title": shown, **look.opts})
            plots.setdefault(plot, definition)
            meter = f"{key} {look.words}".strip()
            meters[meter] = MeterDefinition(
                *(meter, glob.escape(key), look.meter, dict(look.args), (plot,)),
                *(look.field, label or shown),
                phase=phase,
            )
    order = sorted(plots, key=lambda plot: _ORDER.index(plots[plot].type))
    total = Definitions({plot: plots[plot] for plot in order}, meters)
    total = total + _layers(layers) + _around(around)
    for group in auto.only:
        total = total.only(group)
    return total.with_opts(auto.opts)


def _names(keys: Iterable[str], phases: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Split each key into phase, name and part: `train_loss_step` gives train, loss and step.

    `_step` and `_epoch` are parts only if a name has both, as Lightning logs them. A bare `loss`
    beside `val_loss` is of train, as Keras and Transformers log it, unless there is `train_loss`:
    then it is of no phase.
    """
    phases = tuple(phases)
    split = {key: split_phase(key, phases) for key in keys}
    ends = {(phase, name.lower()) for phase, name in split.values()}
    found = {}
    for key, (phase, name) in split.items():
        stem = _STEPS.fullmatch(name)
        both = stem and all(
            (phase, name[: -len(stem[2])].lower() + e) in ends for e in ("step", "epoch")
        )
        found[key] = (phase, stem[1], stem[2].lower()) if stem and both else (phase, name, "")
    known: dict[str, set[str]] = {}
    for phase, name, _ in found.values():
        known.setdefault(name.lower(), set()).add(phase.lower())
    for key, (phase, name, part) in found.items():
        others = known[name.lower()] - {""}
        if not phase and others:
            is_train = _TRAIN in phases and _TRAIN not in others
            found[key] = (_TRAIN, name, part) if is_train else ("", name, part or "no phase")
    return found


def _free(name: str, kind: str, plots: Mapping[str, PlotDefinition]) -> str:
    """The plot's name, with the type added if a plot of another type has that name."""
    taken = plots.get(name)
    return name if taken is None or taken.type == kind else f"{name} {kind}"


def _looks(name: str, value: Value) -> list[_Look]:
    """The ways to draw values like this one; usually one, none if it cannot be drawn."""
    if isinstance(value, State):
        return _of_state(value)
    if isinstance(value, tuple):
        return _of_pair(name, value)
    if isinstance(value, float):
        return [_Look("LastValueMeter" if _RATE.fullmatch(name) else "AverageValueMeter")]
    if isinstance(value, str):
        return [_Look("TextMeter", "text", alone=True)]
    return _of_array(value)


def _of_state(value: State) -> list[_Look]:
    known = next((look for look in _BY_NAME.values() if look.meter == value.reduction.meter), None)
    look = known or _Look(value.reduction.meter)
    if look.meter == "HistogramMeter":
        return [look._replace(plot="histograms")]
    return [look._replace(args={**value.reduction.args(), **look.args})]


def _of_pair(name: str, value: tuple[Any, ...]) -> list[_Look]:
    if len(value) != 2 or any(isinstance(part, str) for part in value):
        return []
    a, b = map(np.asarray, value)
    if a.ndim == b.ndim == 0:
        return [_Look("AverageValueMeter")]  # a sum, and the number of its terms
    if name.lower() in _BY_NAME:
        return [_BY_NAME[name.lower()]]
    is_class = b.dtype.kind in "iub"
    if a.ndim == 2 and b.ndim == 1 and len(a) == len(b) and is_class and a.shape[1] > 1:
        return [_ACCURACY, *([_MATRIX] if a.shape[1] <= _FEW else [])]
    if a.shape == b.shape and is_class and a.dtype.kind == "f" and a.ndim <= 2:
        return [_Look("AUCMeter", words="AUC") if a.ndim == 1 else _Look("mAPMeter", words="mAP")]
    return [_Look("MSEMeter", words="MSE")] if a.shape == b.shape else []


def _of_array(value: Any) -> list[_Look]:
    shape = value.shape
    if value.dtype.kind == "c" or not value.size:
        return []
    if len(shape) == 1:
        several = _Look("LastValueMeter", "histogram", alone=True)
        return [_Look("AverageValueMeter", alone=True) if len(value) <= _SHORT else several]
    if len(shape) == 2:
        is_picture = value.dtype == np.uint8
        return [
            _Look("ImageMeter", "image", alone=True)
            if is_picture
            else _Look("LastValueMeter", "heatmap", alone=True)
        ]
    if len(shape) == 3:
        is_one = shape[0] in (1, 3, 4) or shape[2] in (3, 4)
        return [_Look("ImageMeter", "image" if is_one else "images", alone=True)]
    return [_Look("ImageMeter", "images", alone=True)] if len(shape) == 4 else []


_UNITS = {
    "percent": "percent",
    "bytes_per_second": "bytes / s",
    "bytes": "bytes",
    "watts": "watts",
    "celsius": "°C",
}
"""The ends of the names of samples of the machine, and their words."""

_TAIL = 20  # lines of a console that are shown


def _around(values: Mapping[str, Value | None]) -> Definitions:
    """A plot for each unit of the samples of the machine, and the last lines of the console."""
    plots, meters = dict[str, PlotDefinition](), dict[str, MeterDefinition]()
    units = {key: next((unit for unit in _UNITS if key.endswith(f"_{unit}")), "") for key in values}
    for unit in dict.fromkeys((*_UNITS, "")):
        for key in (key for key, its in units.items() if its == unit and key.startswith(SYSTEM)):
            if not isinstance(values[key], float):
                continue
            plot = f"{SYSTEM}{unit}".rstrip("/")
            opts = {"title": f"System: {_UNITS[unit]}" if unit else "System"}
            plots[plot] = PlotDefinition(plot, "line", opts)
            label = key.removeprefix(SYSTEM).removesuffix(f"_{unit}").replace("_", " ")
            meters[key] = MeterDefinition(
                key, glob.escape(key), "AverageValueMeter", {}, (plot,), None, label
            )
    for key in (key for key, value in values.items() if isinstance(value, str)):
        if key.startswith(CONSOLE):
            plots[key] = PlotDefinition(key, "text", {"title": key.removeprefix(CONSOLE)})
            meters[key] = MeterDefinition(
                *(key, glob.escape(key), "TextMeter", {"lines": _TAIL}, (key,)), reset=False
            )
    return Definitions(plots, meters)


def _layers(keys: Iterable[str]) -> Definitions:
    """The plots of `health` that keys feed, and a plot for each source that it does not draw.

    All are drawn as heat beyond a dozen layers.
    """
    matched = (match for match in map(_LAYER.fullmatch, keys) if match)
    there = Counter(match[1] for match in matched)
    health = preset("health")
    chosen = [plot for plot in health.plots if plot in there]
    drawn = {plot.partition("/")[0] for plot in chosen}
    others = Definitions()
    for name in _FALLBACK:
        others += preset(name)
    others = others.with_opts({"heat_above": FEW_LAYERS})
    for stat in ("std", "mean", "norm"):
        for source in dict.fromkeys(each.partition("/")[0] for each in there):
            plot = f"{source}/{stat}"
            if source not in drawn and plot in there and plot in others.plots:
                chosen.append(plot)
                drawn.add(source)
    profile = preset("profile")
    chosen += [plot for plot in profile.plots if plot in there]
    every = {**others.plots, **health.plots, **profile.plots}
    meters = {**others.meters, **health.meters, **profile.meters}
    return Definitions(
        {plot: every[plot] for plot in chosen},
        {
            name: replace(meter, targets=tuple(t for t in meter.targets if t in chosen))
            for name, meter in meters.items()
            if set(meter.targets) & set(chosen)
        },
    )
