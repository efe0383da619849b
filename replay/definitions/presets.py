"""Named definitions for common tasks: plain data, with `{phase}` for train, test, …"""

from collections.abc import Iterable
from typing import Any

from flexrec.recorder.errors import DefinitionError, nearest
from flexrec.replay.definitions.definitions import Auto, Definitions, define
from flexrec.replay.definitions.phases import PHASES

_USUAL = ("train", "test")
"""The phases that one hears of when they are missing."""

_POWERS = [f"2^{k}" for k in range(-24, 17)]
LOG_BINS = [*(f"-{power}" for power in reversed(_POWERS)), "0", *_POWERS]
"""The bins of TooledModel's `log_histogram`, by the bound that is nearer to 0."""


def _metric(
    name: str, meter: str, doc: str, *, args: dict[str, Any] | None = None, **opts: str
) -> Any:
    """A line plot with one trace per phase, of the key `<phase>_<name>`."""
    table = {"type": meter, "target": name, "label": "{phase}", **({"args": args} if args else {})}
    plot = {"type": "line", **({"opts": opts} if opts else {})}
    return {"doc": doc, "plots": {name: plot}, "meters": {f"{{phase}}_{name}": table}}


def _lines(pattern: str, **opts: str) -> Any:
    """A line plot for `source/statistic`: a trace for each layer."""
    return {pattern: {"type": "line", "opts": {"title": pattern.replace("/", " "), **opts}}}


def _per_layer(*patterns: str, meter: str = "AverageValueMeter") -> Any:
    """For each `source/statistic` a meter of every layer, drawn in the plot of that name."""
    return {f"*/{p}": {"type": meter, "target": p, "label": "{layer}"} for p in patterns}


def _histograms(*sources: str) -> Any:
    """For each source histograms over time where they were recorded, a window for each layer."""
    plots: Any = {}
    meters: Any = {}
    for source in sources:
        adaptive, fixed = f"{source}/histogram", f"{source}/log_histogram"
        plots[adaptive] = {"type": "histograms", "opts": {"title": source}}
        plots[fixed] = {
            "type": "heatmap",
            "opts": {"title": f"{source}, by power of 2", "rownames": LOG_BINS},
        }
        meters |= _per_layer(adaptive, meter="LastValueMeter") | _per_layer(fixed)
    return plots, {name: {**meter, "optional": True} for name, meter in meters.items()}


def _everything(target: str, label: str) -> Any:
    """Every number that TooledModel recorded; what is of a window itself is not averaged again."""
    shown = {"key": "*/*/*", "target": target, "label": label}
    arrays = ["*/histogram", "*/log_histogram"]
    streams = [f"*/grad_weights/{stat}" for stat in ("signal", "noise", "snr")]
    return {
        f"means by {label}": {
            **shown,
            "type": "AverageValueMeter",
            "exclude": [*arrays, *streams],
        },
        f"latest by {label}": {**shown, "type": "LastValueMeter", "only": streams},
    }


_UPDATE_RATIO = {"title": "Update to weight", "ylabel": "‖update‖ / ‖weights‖", "ytype": "log"}
_DEAD = {"title": "Dead units", "ylabel": "fraction of units"}
_GRADIENTS = _histograms("grad_out", "grad_in", "grad_weights")
_WEIGHTS, _UPDATES = _histograms("weights"), _histograms("updates")
_ACTIVATIONS = _histograms("inputs", "outputs")

_PRESETS: dict[str, Any] = {
    "auto": {
        "doc": "what a recording holds: numbers by name, pairs, pictures and texts, and layers as "
        "health draws them; with +, what the other presets leave",
        "plots": {},
        "meters": {},
    },
    "loss": _metric("loss", "AverageValueMeter", "mean loss of each phase, from numbers"),
    "MSE": _metric(
        "mse", "MSEMeter", "mean squared error, from (output, target) pairs", title="MSE"
    ),
    "acc": _metric(
        "acc",
        "ClassErrorMeter",
        "accuracy in percent, from (output, target) pairs",
        args={"accuracy": True},
        title="Accuracy",
        ylabel="percent",
    ),
    "err": _metric(
        "err",
        "ClassErrorMeter",
        "classification error in percent, from (output, target) pairs",
        title="Error",
        ylabel="percent",
    ),
    "AUC": _metric(
        "auc", "AUCMeter", "area under the ROC curve, from (score, target) pairs", title="AUC"
    ),
    "mAP": _metric(
        "map", "mAPMeter", "mean average precision, from (score, target) pairs", title="mAP"
    ),
    "confusion": {
        "doc": "confusion matrix of each phase, as fractions of each true class, "
        "from (output, target) pairs",
        "plots": {
            "{phase}_confusion": {
                "type": "heatmap",
                "opts": {
                    "title": "Confusion{, phase}",
                    "xlabel": "predicted",
                    "ylabel": "true",
                    "numbers": True,
                    "xmin": 0,
                    "xmax": 1,
                },
            }
        },
        "meters": {
            "{phase}_confusion": {
                "type": "ConfusionMeter",
                "target": "{phase}_confusion",
                "args": {"normalized": True},
                "label": "{phase}",
            }
        },
    },
    "time": {
        "doc": "seconds for each add of the loss, on recorded time",
        "plots": {"time": {"type": "line", "opts": {"ylabel": "s"}}},
        "meters": {
            "{phase}_time": {
                "key": "{phase}_loss",
                "type": "TimeMeter",
                "target": "time",
                "args": {"unit": True},
                "label": "{phase}",
            }
        },
    },
    "lr": {
        "doc": "the learning rate, from numbers under the key lr",
        "plots": {"lr": {"type": "line", "opts": {"title": "Learning rate"}}},
        "meters": {"lr": {"type": "LastValueMeter", "target": "lr"}},
    },
    "grads": {
        "doc": "mean and std of the gradients of each layer's outputs, inputs and weights, and "
        "histograms over time where recorded",
        "record": 'rec.watch(model, sources=("grad_out", "grad_in", "grad_weights"))',
        "plots": {
            **_lines("grad_out/mean"),
            **_lines("grad_out/std", ytype="log"),
            **_lines("grad_in/mean"),
            **_lines("grad_in/std", ytype="log"),
            **_lines("grad_weights/mean"),
            **_lines("grad_weights/std", ytype="log"),
            **_lines(
                "grad_weights/grad_ratio",
                title="Gradient to weight",
                ylabel="‖gradient‖ / ‖weights‖",
                ytype="log",
            ),
            **_GRADIENTS[0],
        },
        "meters": {
            **_per_layer(
                *("grad_out/mean", "grad_out/std", "grad_in/mean", "grad_in/std"),
                *("grad_weights/mean", "grad_weights/std", "grad_weights/grad_ratio"),
            ),
            **_GRADIENTS[1],
        },
    },
    "weights": {
        "doc": "mean and std of each layer's weights, and histograms over time where recorded",
        "record": 'rec.watch(model, sources=("weights",), stats=("mean", "std", "histogram"))',
        "plots": {**_lines("weights/mean"), **_lines("weights/std"), **_WEIGHTS[0]},
        "meters": {**_per_layer("weights/mean", "weights/std"), **_WEIGHTS[1]},
    },
    "activations": {
        "doc": "mean and std of each layer's inputs and outputs, and histograms over time where "
        "recorded",
        "record": 'rec.watch(model, sources=("inputs", "outputs"))',
        "plots": {
            **_lines("inputs/mean"),
            **_lines("inputs/std", ytype="log"),
            **_lines("outputs/mean"),
            **_lines("outputs/std", ytype="log"),
            **_ACTIVATIONS[0],
        },
        "meters": {
            **_per_layer("inputs/mean", "inputs/std", "outputs/mean", "outputs/std"),
            **_ACTIVATIONS[1],
        },
    },
    "updates": {
        "doc": "norm of each layer's update over that of its weights, about 1e-3 is usual, and "
        "histograms of updates over time where recorded",
        "record": 'rec.watch(model, sources=("updates",), stats=("update_ratio", "histogram"))',
        "plots": {**_lines("updates/update_ratio", **_UPDATE_RATIO), **_UPDATES[0]},
        "meters": {**_per_layer("updates/update_ratio"), **_UPDATES[1]},
    },
    "dead": {
        "doc": "fraction of each layer's units that were zero over a batch; of modules, as nn.ReLU",
        "record": 'rec.watch(model, stats=("dead",))',
        "plots": _lines("outputs/dead", **_DEAD),
        "meters": _per_layer("outputs/dead"),
    },
    "snr": {
        "doc": "signal, noise and their ratio, of each layer's weight gradients across minibatches",
        "record": 'rec.watch(model, stats=("snr", "signal", "noise")) and a log for each epoch',
        "plots": {
            **_lines("grad_weights/snr", title="Gradient SNR", ytype="log"),
            **_lines("grad_weights/signal", title="Gradient mean, normalised", ytype="log"),
            **_lines("grad_weights/noise", title="Gradient std, normalised", ytype="log"),
        },
        "meters": _per_layer(
            "grad_weights/snr",
            "grad_weights/signal",
            "grad_weights/noise",
            meter="LastValueMeter",
        ),
    },
    "health": {
        "doc": "what to look at first: loss, gradients, updates, activations, dead units, NaN",
        "record": 'rec.watch(model, sources=("outputs", "grad_weights"), '
        'stats=("std", "norm", "nonfinite", "dead", "update_ratio"))',
        "plots": {
            "loss": {"type": "line"},
            **_lines("grad_weights/norm", title="Gradient norm", ylabel="‖gradient‖", ytype="log"),
            **_lines("updates/update_ratio", **_UPDATE_RATIO),
            **_lines("outputs/std", title="Activations", ylabel="std", ytype="log"),
            **_lines("outputs/dead", **_DEAD),
            **_lines(
                "grad_weights/nonfinite",
                title="NaN and infinite gradients",
                ylabel="fraction of elements",
            ),
        },
        "meters": {
            **_metric("loss", "AverageValueMeter", "")["meters"],
            **_per_layer(
                "grad_weights/norm",
                "updates/update_ratio",
                "outputs/std",
                "outputs/dead",
                "grad_weights/nonfinite",
            ),
        },
    },
    "infoplane": {
        "doc": "what each layer tells of inputs and classes, from Recorder.activations; "
        "epochs as colour, each a path through the layers; for tanh, see docs/insight.md for ReLU",
        "record": "rec.activations(model, inputs, classes) on the same batch at each epoch",
        "plots": {
            "infoplane": {
                "type": "plane",
                "opts": {
                    "title": "Information plane",
                    "xlabel": "I(X;T) in bits",
                    "ylabel": "I(T;Y) in bits",
                    "zlabel": "epoch",
                    "ztype": "log",
                    "mode": "lines+markers",
                    "width": 720,
                    "height": 480,
                },
            }
        },
        "meters": {
            "*/activations": {
                "type": "InformationMeter",
                "target": "infoplane",
                "label": "{layer}",
            }
        },
    },
    "layers": {
        "doc": "a chart a layer: every number that TooledModel recorded of it",
        "plots": {"{layer}": {"type": "line", "opts": {"title": "{layer}"}}},
        "meters": _everything("{layer}", "{source} {stat}"),
    },
    "sources": {
        "doc": "a chart a source and statistic: every layer that TooledModel recorded",
        "plots": {"{source} {stat}": {"type": "line", "opts": {"title": "{source} {stat}"}}},
        "meters": _everything("{source} {stat}", "{layer}"),
    },
}
_PRESETS["simple"] = {
    "doc": "loss and accuracy: the same as loss+acc",
    "plots": {**_PRESETS["loss"]["plots"], **_PRESETS["acc"]["plots"]},
    "meters": {**_PRESETS["loss"]["meters"], **_PRESETS["acc"]["meters"]},
}


def preset_names() -> list[str]:
    """The names that `preset` knows; `+` puts several together."""
    return sorted(_PRESETS, key=str.lower)


def preset(name: str, *, phases: Iterable[str] = ()) -> Definitions:
    """The definitions behind a name, in any letter case, such as `"loss+MSE"`.

    >>> preset("loss+mse").meters["test_mse"].targets
    ('mse',)

    A preset takes the metrics of train, val, valid, validation, test and eval, and those of no
    phase, wherever the phase stands: `train_loss`, `loss/train`, `train.loss`, `loss`. The preset
    `auto` draws what a recording holds: it is for `play`, as a logger cannot know that beforehand.

    Args:
        name: one or several of `preset_names()`, with `+` between them.
        phases: the phases to take instead, in this order.

    Raises:
        DefinitionError: there is no such preset; the message has the nearest name.
    """
    asked = (phases,) if isinstance(phases, str) else tuple(phases)
    total = Definitions(auto=Auto(asked or PHASES) if "auto" in _split(name) else None)
    for entry in _entries(name):
        plots, meters = dict[str, Any](), dict[str, Any]()
        for phase in asked or (*PHASES, ""):
            plots |= _fill(entry["plots"], phase)
            for meter, table in entry["meters"].items():
                meters[_fill(meter, phase)] = _of_phase(meter, table, phase, bool(asked))
        total += define(plots, meters)
    return total


def preset_info(name: str) -> str:
    """What a preset plots, and of which keys.

    >>> print(preset_info("loss"))
    loss: mean loss of each phase, from numbers
      plot loss (line)
        {phase}_loss: AverageValueMeter
    """
    lines = []
    for part, entry in zip(_split(name), _entries(name), strict=True):
        lines.append(f"{part}: {entry['doc']}")
        if "record" in entry:
            lines.append(f"  record it with {entry['record']}")
        for plot, table in entry["plots"].items():
            lines.append(f"  plot {plot} ({table['type']})")
            for meter, made in entry["meters"].items():
                if made["target"] == plot:
                    key = f" of {made['key']}" if "key" in made else ""
                    lines.append(f"    {meter}: {made['type']}{key}")
    return "\n".join(lines)


def _split(name: str) -> list[str]:
    by_folded = {known.lower(): known for known in _PRESETS}
    parts = []
    for part in name.split("+"):
        known = by_folded.get(part.strip().lower())
        if known is None:
            unknown = part.strip()
            hint = nearest(unknown, _PRESETS)
            raise DefinitionError(f"no preset {unknown!r}{hint} (flexrec presets lists them)")
        parts.append(known)
    return list(dict.fromkeys(parts))


def _entries(name: str) -> list[Any]:
    return [_PRESETS[part] for part in _split(name)]


def _of_phase(name: str, table: dict[str, Any], phase: str, asked: bool) -> dict[str, Any]:
    """A meter's table, with a phase in it where it is of one; nobody asked for it: optional."""
    key = table.get("key", name)
    if "{phase}" not in key:
        return table
    filled = {part: _fill(value, phase) for part, value in table.items()}
    if not filled.get("label"):
        filled.pop("label", None)
    optional = {} if asked or phase in _USUAL else {"optional": True}
    return {**filled, "key": key.replace("{phase}", f"{{{phase}}}"), **optional}


def _fill(value: Any, phase: str) -> Any:
    """The value with the phase in it; without one, what joins it to the rest goes too."""
    if isinstance(value, str):
        joined = value if phase else value.replace("{phase}_", "").replace("{, phase}", "")
        return joined.replace("{, phase}", ", {phase}").replace("{phase}", phase)
    if isinstance(value, dict):
        return {_fill(key, phase): _fill(item, phase) for key, item in value.items()}
    return value
