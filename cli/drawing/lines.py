"""`flexrec show --plot`: line plots as text, for a terminal on the machine where training runs."""

from pathlib import Path

import numpy as np

from flexrec.cli.drawing.text_plot import MARKS, Curve, text_plot
from flexrec.cli.replaying import tell_left_out
from flexrec.recorder.errors import DefinitionError, listed, nearest, printable
from flexrec.recorder.recording import Recording
from flexrec.replay.definitions.presets import preset, preset_names
from flexrec.replay.export.keys import fitting_keys
from flexrec.replay.player.player import Played, play_all
from flexrec.replay.plots.registry import plot_type
from flexrec.replay.plots.thinning import thin_window
from flexrec.replay.plots.window import Trace, Window, legend_names

MAX_POINTS = 2000


def plot_text(path: Path, name: str) -> tuple[str, bool]:
    """Draw the lines of a preset, or of the keys that a name or pattern matches, as text.

    Returns:
        The text, and whether every value could be drawn.

    Raises:
        DefinitionError: there is neither such a preset nor such a key, or none of it is a line.
    """
    with Recording(path) as run:
        played = _played(run, name)
    tell_left_out(played.left_out)
    windows = played.windows
    drawn = [window for window in windows if plot_type(window.type).has_lines]
    if not drawn:
        raise DefinitionError(
            f"{name!r} has no lines that can be drawn as text; flexrec replay draws the rest"
        )
    others = [window for window in windows if window not in drawn]
    left = [printable(f"{w.title} is a {w.type}: not shown as text") for w in others]
    lines = [*(_drawn(thin_window(window, MAX_POINTS)) for window in drawn), *left]
    return "\n".join(lines), not played.left_out


def _played(run: Recording, name: str) -> Played:
    known = {preset_name.lower() for preset_name in preset_names()}
    if name not in run and {part.strip().lower() for part in name.split("+")} <= known:
        return play_all(run, preset(name))
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
    window = Window(name, None, "line", tuple(traces), {"title": name, "xlabel": "step"})
    return Played([window], [])


def _drawn(window: Window) -> str:
    shown, rows = [trace for trace in window.traces if not trace.pale], plot_type(window.type).rows
    curves = list[Curve]()
    for name, trace in zip(legend_names(shown, window.title), shown, strict=True):
        x = np.arange(np.shape(trace.y)[-1]) if trace.x is None else trace.x
        before = f"{name} " if len(shown) > 1 else ""
        parts = zip((f"{before}{row}" for row in rows), trace.y, strict=True)
        curves += [(part, x, y) for part, y in parts] if rows else [(name, x, trace.y)]
    is_log = "log" in (window.opts.get("ytype"), window.opts.get("ztype"))
    return text_plot(window.title, curves, is_log=is_log, marks=MARKS[: max(6, len(rows))])
