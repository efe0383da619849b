"""Named definitions for common tasks: plain data, with `{phase}` for train, test, …"""

from collections.abc import Iterable
from typing import Any

from flexrec.recorder.errors import DefinitionError, nearest
from flexrec.replay.definitions import Definitions, define

__all__ = ["preset", "preset_info", "preset_names"]

PHASES = ("train", "test")


def _metric(name: str, meter: str, doc: str, *, args: dict[str, Any] | None = None) -> Any:
    """A line plot with one trace per phase, of the key `<phase>_<name>`."""
    table = {"type": meter, "target": name, **({"args": args} if args else {})}
    return {"doc": doc, "plots": {name: {"type": "line"}}, "meters": {f"{{phase}}_{name}": table}}


def _layers(name: str, doc: str, *patterns: str) -> Any:
    """One line plot per pattern `source/stat`, one trace per layer."""
    plots = {f"{name}_{p.replace('/', '_')}": p for p in patterns}
    return {
        "doc": doc,
        "plots": {
            plot: {"type": "line", "opts": {"title": p.replace("/", " ")}}
            for plot, p in plots.items()
        },
        "meters": {
            plot: {"key": f"*/{p}", "type": "AverageValueMeter", "target": plot, "label": "{layer}"}
            for plot, p in plots.items()
        },
    }


_PRESETS: dict[str, Any] = {
    "loss": _metric("loss", "AverageValueMeter", "mean loss of each phase, from numbers"),
    "MSE": _metric("mse", "MSEMeter", "mean squared error, from (output, target) pairs"),
    "acc": _metric(
        "acc",
        "ClassErrorMeter",
        "accuracy in percent, from (output, target) pairs",
        args={"accuracy": True},
    ),
    "err": _metric(
        "err", "ClassErrorMeter", "classification error in percent, from (output, target) pairs"
    ),
    "AUC": _metric("auc", "AUCMeter", "area under the ROC curve, from (score, target) pairs"),
    "mAP": _metric("map", "mAPMeter", "mean average precision, from (score, target) pairs"),
    "confusion": {
        "doc": "confusion matrix of each phase, in percent of each true class, "
        "from (output, target) pairs",
        "plots": {
            "{phase}_confusion": {
                "type": "heatmap",
                "opts": {
                    "title": "{phase} confusion",
                    "xlabel": "predicted",
                    "ylabel": "true",
                },
            }
        },
        "meters": {
            "{phase}_confusion": {
                "type": "ConfusionMeter",
                "target": "{phase}_confusion",
                "args": {"normalized": True},
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
            }
        },
    },
    "lr": {
        "doc": "the learning rate, from numbers under the key lr",
        "plots": {"lr": {"type": "line", "opts": {"title": "Learning rate"}}},
        "meters": {"lr": {"type": "LastValueMeter", "target": "lr"}},
    },
    "grads": _layers(
        "grads",
        "mean and std of the gradients of each layer's outputs and inputs",
        "grad_out/mean",
        "grad_out/std",
        "grad_in/mean",
        "grad_in/std",
    ),
    "weights": _layers(
        "weights", "mean and std of each layer's weights", "weights/mean", "weights/std"
    ),
    "activations": _layers(
        "activations", "mean and std of each layer's inputs", "inputs/mean", "inputs/std"
    ),
    "layers": {
        "doc": "a chart a layer: every statistic that TooledModel recorded of it",
        "plots": {"{layer}": {"type": "line", "opts": {"title": "{layer}"}}},
        "meters": {
            "*/*/*": {"type": "AverageValueMeter", "target": "{layer}", "label": "{source} {stat}"}
        },
    },
    "sources": {
        "doc": "a chart a source and statistic: every layer that TooledModel recorded",
        "plots": {"{source} {stat}": {"type": "line", "opts": {"title": "{source} {stat}"}}},
        "meters": {
            "*/*/*": {
                "type": "AverageValueMeter",
                "target": "{source} {stat}",
                "label": "{layer}",
            }
        },
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


def preset(name: str, *, phases: Iterable[str] = PHASES) -> Definitions:
    """The definitions behind a name, in any letter case, such as `"loss+MSE"`.

    >>> preset("loss+mse").meters["test_mse"].targets
    ('mse',)

    Args:
        name: one or several of `preset_names()`, with `+` between them.
        phases: what `{phase}` in the preset's keys becomes, one after the other.

    Raises:
        DefinitionError: there is no such preset; the message has the nearest name.
    """
    total = Definitions()
    for entry in _entries(name):
        tables = {
            part: {
                _fill(key, phase): _fill(table, phase)
                for key, table in entry[part].items()
                for phase in phases
            }
            for part in ("plots", "meters")
        }
        total += define(tables["plots"], tables["meters"])
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
            raise DefinitionError(
                f"no preset {name!r}{_nearest_whole(name)} (flexrec presets lists them)"
            )
        parts.append(known)
    return list(dict.fromkeys(parts))


def _entries(name: str) -> list[Any]:
    return [_PRESETS[part] for part in _split(name)]


def _nearest_whole(name: str) -> str:
    """`; did you mean 'loss+MSE'?`: every part replaced by its nearest, if all have one."""
    parts = []
    for part in name.split("+"):
        hint = nearest(part.strip(), _PRESETS)
        if not hint:
            return ""
        parts.append(hint.split("'")[1])
    return f"; did you mean {'+'.join(parts)!r}?"


def _fill(value: Any, phase: str) -> Any:
    if isinstance(value, str):
        return value.replace("{phase}", phase)
    if isinstance(value, dict):
        return {_fill(key, phase): _fill(item, phase) for key, item in value.items()}
    return value
