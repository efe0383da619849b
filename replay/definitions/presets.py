"""The presets: named definitions for common tasks, as data, with `{phase}` for train, test, …"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from flexrec.recorder.errors import DefinitionError, nearest
from flexrec.replay.definitions.definitions import Auto, Definitions, define
from flexrec.replay.definitions.phases import PHASES

_USUAL = ("train", "test")
"""The phases that are reported if they are missing."""

_POWERS = [f"2^{k}" for k in range(-24, 17)]
LOG_BINS = [*(f"-{power}" for power in reversed(_POWERS)), "0", *_POWERS]
"""The bins of TooledModel's `log_histogram`, named by the bound that is nearer to 0."""


def _metric(
    name: str, meter: str, doc: str, *, args: dict[str, Any] | None = None, **opts: str
) -> Any:
    """A line plot with one trace per phase, of the key `<phase>_<name>`."""
    table = {"type": meter, "target": name, "label": "{phase}", **({"args": args} if args else {})}
    plot = {"type": "line", **({"opts": opts} if opts else {})}
    return {"doc": doc, "plots": {name: plot}, "meters": {f"{{phase}}_{name}": table}}


def _lines(pattern: str, **opts: Any) -> Any:
    """A line plot for `source/statistic`: a trace for each layer."""
    return {pattern: {"type": "line", "opts": {"title": pattern.replace("/", " "), **opts}}}


def _layers(pattern: str, **opts: Any) -> Any:
    """The same, and for a deep model a row of colours for each layer."""
    return _lines(pattern, heat_above=FEW_LAYERS, **opts)


def _per_layer(*patterns: str, meter: str = "AverageValueMeter") -> Any:
    """A meter for each `source/statistic` of every layer, drawn in the plot of that name."""
    return {f"*/{p}": {"type": meter, "target": p, "label": "{layer}"} for p in patterns}


def _histograms(*sources: str) -> Any:
    """Quantiles over time for each source, if histograms were recorded: a window for each layer."""
    plots: Any = {}
    meters: Any = {}
    for source in sources:
        adaptive, fixed = f"{source}/histogram", f"{source}/log_histogram"
        fan = f"{adaptive}.{{layer}}"
        plots[fan] = {"type": "fan", "opts": {"title": f"{source}: {{layer}}"}}
        plots[fixed] = {
            "type": "heatmap",
            "opts": {"title": f"{source}, by power of 2", "rownames": LOG_BINS},
        }
        meters[f"*/{adaptive}"] = {"type": "LastValueMeter", "target": fan, "label": "{layer}"}
        meters |= _per_layer(fixed)
    return plots, {name: {**meter, "optional": True} for name, meter in meters.items()}


def _everything(target: str, label: str) -> Any:
    """Meters for all numbers that TooledModel recorded; statistics of a window are not averaged."""
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


FEW_LAYERS = 12  # more are drawn as heat
_UPDATE_RATIO = {
    "title": "Update to weight",
    "ylabel": "‖update‖ / ‖weights‖",
    "ytype": "log",
    "guide": 1e-3,
}
_OUTPUT_STD = {"title": "Activations", "ylabel": "std of outputs", "ytype": "log"}
_DEAD = {"title": "Dead units", "ylabel": "fraction of units"}
_GRADIENTS = _histograms("grad_out", "grad_in", "grad_weights")
_WEIGHTS, _UPDATES = _histograms("weights"), _histograms("updates")
_ACTIVATIONS = _histograms("inputs", "outputs")

_PRESETS: dict[str, Any] = {
    "auto": {
        "doc": "all that a recording holds: numbers by name, pairs, pictures and texts, and layers "
        "as in health; combined with +, only keys that the other presets do not take",
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
        "doc": "seconds per add of the loss, from the recorded times",
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
            **_layers("outputs/std", **_OUTPUT_STD),
            **_ACTIVATIONS[0],
        },
        "meters": {
            **_per_layer("inputs/mean", "inputs/std", "outputs/mean", "outputs/std"),
            **_ACTIVATIONS[1],
        },
    },
    "updates": {
        "doc": "ratio of the norms of each layer's update and weights, usually about 1e-3, and "
        "histograms of updates over time where recorded",
        "record": 'rec.watch(model, sources=("updates",), stats=("update_ratio", "histogram"))',
        "plots": {**_layers("updates/update_ratio", **_UPDATE_RATIO), **_UPDATES[0]},
        "meters": {**_per_layer("updates/update_ratio"), **_UPDATES[1]},
    },
    "dead": {
        "doc": "fraction of each layer's units that are zero over a batch; for modules as nn.ReLU",
        "record": 'rec.watch(model, stats=("dead",))',
        "plots": _layers("outputs/dead", **_DEAD),
        "meters": _per_layer("outputs/dead"),
    },
    "snr": {
        "doc": "signal, noise and their ratio in each layer's weight gradients across minibatches",
        "record": 'rec.watch(model, stats=("snr", "signal", "noise")), with a log after each epoch',
        "plots": {
            "grad_weights/signal": {
                "type": "line",
                "opts": {
                    "title": "Gradient signal and noise",
                    "ylabel": "‖mean‖, ‖std‖ / ‖weights‖",
                    "ytype": "log",
                    "width": 720,
                    "height": 480,
                },
            },
            **_lines("grad_weights/snr", title="Gradient SNR", ytype="log"),
        },
        "meters": {
            f"*/grad_weights/{stat}": {
                "type": "LastValueMeter",
                "target": f"grad_weights/{plot}",
                "label": f"{{layer}}{words}",
            }
            for stat, plot, words in (
                ("signal", "signal", " mean"),
                ("noise", "signal", " std"),
                ("snr", "snr", ""),
            )
        },
    },
    "health": {
        "doc": "overview of a training run: loss, gradients, updates, activations, dead units, NaN",
        "record": 'rec.watch(model, sources=("outputs", "grad_weights"), '
        'stats=("std", "norm", "nonfinite", "dead", "update_ratio"))',
        "plots": {
            "loss": {"type": "line"},
            **_layers("grad_weights/norm", title="Gradient norm", ylabel="‖gradient‖", ytype="log"),
            **_layers("updates/update_ratio", **_UPDATE_RATIO),
            **_layers("outputs/std", **_OUTPUT_STD),
            **_layers("outputs/dead", **_DEAD),
            **_layers(
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
    "profile": {
        "doc": "what each layer costs: its share of the step's time, its seconds forward and "
        "backward, and the bytes that it keeps, without those of the layers inside it",
        "record": 'rec.watch(model, stats=("seconds", "bytes"), every=10)',
        "plots": {
            **_layers("step/share", title="Share of the step", ylabel="fraction of the time"),
            **_layers("forward/seconds", title="Forward", ylabel="seconds"),
            **_layers("backward/seconds", title="Backward", ylabel="seconds"),
            **_layers("forward/bytes", title="Memory kept by forward", ylabel="bytes"),
        },
        "meters": {
            **_per_layer("step/share", "forward/seconds", "backward/seconds"),
            "*/forward/bytes": {
                "type": "AverageValueMeter",
                "target": "forward/bytes",
                "label": "{layer}",
                "optional": True,
            },
        },
    },
    "infoplane": {
        "doc": "mutual information of each layer with inputs and classes, from "
        "Recorder.activations; each epoch is a coloured path through the layers; for tanh, see "
        "docs/insight.md for ReLU",
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
        "doc": "every number that TooledModel recorded, in a plot for each layer",
        "plots": {"{layer}": {"type": "line", "opts": {"title": "{layer}"}}},
        "meters": _everything("{layer}", "{source} {stat}"),
    },
    "sources": {
        "doc": "every number that TooledModel recorded, in a plot for each source and statistic",
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
    """The names that `preset` takes; `+` combines several."""
    return sorted(_PRESETS, key=str.lower)


def preset(name: str, *, phases: Iterable[str] = ()) -> Definitions:
    """The definitions of a preset, by its name in any letter case, such as `"loss+MSE"`.

    >>> preset("loss+mse").meters["test_mse"].targets
    ('mse',)

    A preset takes the metrics of the phases train, val, valid, validation, test and eval, and
    metrics without a phase; the phase may come first or last: `train_loss`, `loss/train`,
    `train.loss`, `loss`. The preset `auto` draws all that a recording holds: it works with `play`
    only, since a logger cannot know the keys beforehand.

    Args:
        name: one or several of `preset_names()`, joined by `+`.
        phases: the phases to take instead, in this order.

    Raises:
        DefinitionError: there is no such preset; the message gives the nearest name.
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
    """Describe a preset: its plots, its meters, and the keys that feed them.

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


def how_to_record(missing: Iterable[str]) -> str | None:
    """The call that records most of these keys and patterns of presets, if there is one.

    >>> how_to_record(["*/outputs/dead"])
    'rec.watch(model, stats=("dead",))'
    """
    wanted = set(missing)
    found = [
        (len(wanted & set(entry["meters"])), -len(entry["meters"]), entry["record"])
        for entry in _PRESETS.values()
        if "record" in entry and wanted & set(entry["meters"])
    ]
    return max(found)[2] if found else None


def preset_of(key: str) -> str | None:
    """The preset that draws a key that only a model's recording has, if there is one.

    >>> preset_of("0/activations"), preset_of("odd")
    ('infoplane', None)
    """
    fitting = (
        name
        for name, entry in _PRESETS.items()
        if "record" in entry and any(fnmatchcase(key, pattern) for pattern in entry["meters"])
    )
    return next(fitting, None)


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
    """A meter's table for a phase, if it has one; optional unless the phase was asked for."""
    key = table.get("key", name)
    if "{phase}" not in key:
        return table
    filled = {part: _fill(value, phase) for part, value in table.items()}
    if not filled.get("label"):
        filled.pop("label", None)
    optional = {} if asked or phase in _USUAL else {"optional": True}
    return {**filled, "key": key.replace("{phase}", f"{{{phase}}}"), **optional}


def _fill(value: Any, phase: str) -> Any:
    """Insert the phase into the value; an empty phase also removes its separator."""
    if isinstance(value, str):
        joined = value if phase else value.replace("{phase}_", "").replace("{, phase}", "")
        return joined.replace("{, phase}", ", {phase}").replace("{phase}", phase)
    if isinstance(value, dict):
        return {_fill(key, phase): _fill(item, phase) for key, item in value.items()}
    return value
