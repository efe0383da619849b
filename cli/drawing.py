"""`flexrec show --plot`: lines as text, for a terminal on the machine where training runs."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from uniplot import plot_to_string

from flexrec.cli.choosing import fitting_keys
from flexrec.cli.output import printable
from flexrec.recorder.errors import DefinitionError, nearest
from flexrec.recorder.reader import Recording
from flexrec.recorder.wording import listed
from flexrec.replay.player import play
from flexrec.replay.plots import plot_type
from flexrec.replay.presets import preset, preset_names
from flexrec.replay.thinning import thin_window
from flexrec.replay.window import Trace, Window

__all__ = ["plot_text"]

HEIGHT = 16
MAX_POINTS = 2000
MARGIN = 16  # columns that the frame and the numbers beside it take


def plot_text(path: Path, name: str) -> str:
    """The lines of a preset, or of the keys of that name or pattern, as text.

    Raises:
        DefinitionError: there is neither such a preset nor such a key, or nothing that is a line.
    """
    with Recording(path) as run:
        windows = _windows(run, name)
    drawn = [window for window in windows if plot_type(window.type).accumulates]
    if not drawn:
        raise DefinitionError(
            f"{name!r} has no lines that text could show; flexrec replay has more"
        )
    left = [f"{w.title} is a {w.type}: not shown as text" for w in windows if w not in drawn]
    return "\n".join([*(_drawn(thin_window(window, MAX_POINTS)) for window in drawn), *left])


def _windows(run: Recording, name: str) -> list[Window]:
    known = {preset_name.lower() for preset_name in preset_names()}
    if name not in run and {part.strip().lower() for part in name.split("+")} <= known:
        return play(run, preset(name))
    fitting = fitting_keys(run, name)
    keys = [key for key in fitting if run.is_number(key)]
    if fitting and not keys:
        kinds = listed(f"{key} is {run.kind(key)}" for key in fitting)
        raise DefinitionError(f"{run.path}: {kinds}: only numbers can be drawn as text")
    if not keys:
        hint = nearest(name, [*run, *known])
        raise DefinitionError(f"{run.path} has no key {name!r}, nor is it a preset{hint}")
    series = run.series(keys)
    traces = [
        Trace(key, np.asarray(series[key].value, np.float64), np.asarray(series[key].step))
        for key in keys
    ]
    return [Window(name, None, "line", tuple(traces), {"title": name, "xlabel": "step"})]


def _drawn(window: Window) -> str:
    shown = [_finite(trace) for trace in window.traces]
    lines = [(name, x, y) for name, x, y in shown if np.isfinite(y).any()]
    title = printable(window.title)
    if not lines:
        return f"{title}: no finite values"
    log = window.opts.get("ytype") == "log" and all(np.nanmin(y) > 0 for _, _, y in lines)
    if _has_colours():
        return _graph(title, lines, height=HEIGHT, log=log)
    # Without colours only one line can be told from the others.
    return "\n".join(
        _graph(title, [line], height=HEIGHT if len(lines) == 1 else HEIGHT // 2, log=log)
        for line in lines
    )


def _graph(title: str, lines: list[tuple[str, Any, Any]], *, height: int, log: bool) -> str:
    text: str = plot_to_string(
        xs=[x for _, x, _ in lines],
        ys=[y for _, _, y in lines],
        lines=True,
        width=max(20, shutil.get_terminal_size((80, 24)).columns - MARGIN),
        height=height,
        title=title,
        legend_labels=[name for name, _, _ in lines],
        color=_has_colours(),
        character_set="braille",
        y_as_log=log,
    )
    return text


def _finite(trace: Trace) -> tuple[str, Any, Any]:
    y = np.asarray(trace.y, np.float64)
    x = np.arange(len(y)) if trace.x is None else np.asarray(trace.x, np.float64)
    return printable(trace.name), x, np.where(np.isfinite(y), y, np.nan)


def _has_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
