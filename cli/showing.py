"""`flexrec show`: what is in a recording, as tables."""

from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from flexrec.cli.output import counted
from flexrec.recorder.reader import Recording, Series

__all__ = ["model_text", "recording_text"]


def recording_text(path: Path) -> str:
    """The facts of the run, and a row for each key."""
    with Recording(path) as run:
        lines = [f"{path}: {run.state}"]
        facts = run.facts or {}
        for name in ("started", "host", "git_commit", "argv"):
            if facts.get(name):
                value = facts[name]
                lines.append(f"{name}: {' '.join(value) if isinstance(value, list) else value}")
        if run.config is not None:
            lines.append(f"config: {run.config}")
        logs = int(run.marks.is_log.sum())
        keys, events = counted(len(run), "key"), counted(run.event_count, "event")
        lines.append(f"{keys}, {events}, {counted(logs, 'log')}")
        numbers = run.series([key for key in run if run.is_number(key)])
        rows = [[*_row(run, key, numbers.get(key)), f"{run.stored_bytes(key):,}"] for key in run]
    headers = ("key", "kind", "values", "steps", "last", "min", "max", "mean", "bytes")
    return "\n".join(lines) + "\n" + tabulate(rows, headers, floatfmt=".6g", disable_numparse=True)


def _row(run: Recording, key: str, numbers: Series | None) -> list[str]:
    return _other_row(run, key) if numbers is None else _number_row(numbers)


def _number_row(series: Series) -> list[str]:
    values = np.asarray(series.value)
    finite = values[np.isfinite(values)]
    found = (finite.min(), finite.max(), finite.mean()) if len(finite) else (np.nan,) * 3
    shown = [f"{value:.6g}" for value in (values[-1], *found)] if len(values) else [""] * 4
    return [series.key, "number", str(len(values)), _span(series.step), *shown]


def _other_row(run: Recording, key: str) -> list[str]:
    index = run.index(key)
    return [key, run.kind(key), str(len(index.step)), _span(index.step), "", "", "", ""]


def _span(steps: Any) -> str:
    return f"{steps.min()}–{steps.max()}" if len(steps) else ""


def model_text(path: Path) -> str:
    """The two-storey table of the last recorded statistics of each layer."""
    from flexrec.recorder.layer_table import layer_table

    with Recording(path) as run:
        keys = [key for key in run if key.count("/") >= 2 and run.is_number(key)]
        series = run.series(keys)
    statistics: dict[str, dict[str, dict[str, float]]] = {}
    for key in keys:
        rest, _, stat = key.rpartition("/")
        layer, _, source = rest.rpartition("/")
        if len(series[key]):
            last = float(np.asarray(series[key].value)[-1])
            statistics.setdefault(layer, {}).setdefault(source, {})[stat] = last
    if not statistics:
        return f"{path} has no layer statistics: record them with Recorder.watch(model)"
    return str(layer_table(statistics))
