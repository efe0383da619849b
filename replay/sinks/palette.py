"""Choose consistent colours and dashes for layers and runs across windows, and window sizes.

In: windows. Out: windows, as plain data. Opts that the user has set are kept, and a window that
visdom would colour in the same way is unchanged.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, cycle
from typing import TypeAlias

from flexrec.replay.plots.colours import CYCLE, ramp
from flexrec.replay.plots.registry import TYPES
from flexrec.replay.plots.window import Window

FEW = 10
"""Up to this many traces have distinct colours; more are coloured along a ramp, in order."""

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_PHASES = 3  # most lines of a run that dashes tell apart
_LARGE = {"width": 720, "height": 480}


_Listed: TypeAlias = tuple[str | None, str]
"""The list that a trace belongs to (a run, or None), and its name there."""


class Palette:
    """Gives traces of the same name the same colour in all windows.

        windows = Palette().paint(windows)

    The plot's name is removed from a trace's name, so that `train_loss` in the plot `loss` and
    `train_acc` in the plot `acc` have the same colour. If several runs have few lines each, such as
    those of two phases, each run has a colour and each phase a dash. In plots of more than `FEW`
    traces (the layers of a deep model) the colour shows the trace's position in the model, and the
    window is larger; each of several runs then has its own list and dash, unless there are more
    runs than traces in each.
    """

    def __init__(self) -> None:
        self._colours: dict[str, int] = {}
        self._lists: dict[str | None, list[str]] = {}  # the names of each run, or of all under None
        self._runs: dict[str, int] = {}  # the colours of runs with few lines each
        self._phases = {"": 0, "train": 0}  # the dashes of their lines

    def paint(self, windows: Sequence[Window]) -> list[Window]:
        """Add colours to windows if visdom's defaults would not match those of other windows."""
        for window in windows:
            if _opt(window) is None:
                continue
            if _compares(window):
                for run, name in _by_run(window):
                    self._runs.setdefault(str(run), len(self._runs))
                    if name:
                        self._phases.setdefault(name, len(self._phases) - 1)
            elif len(_unlike(window)) > FEW:
                before: dict[str | None, int] = {}
                for run, name in _listed(window):
                    names = self._lists.setdefault(run, [])
                    if name not in names:  # keeps the order of this window
                        names.insert(before.get(run, -1) + 1, name)
                    before[run] = names.index(name)
        return [self._painted(window) for window in windows]

    def _painted(self, window: Window) -> Window:
        opt = _opt(window)
        if opt is None or {opt, "linecolor", "markercolor"} & set(window.opts):
            return window
        names = _names(window)
        sizes = _LARGE if len(_unlike(window)) > FEW else {}
        for listed in (_by_run(window), _together(window)):
            if all(name in self._lists.get(run, ()) for run, name in listed):
                dashes = self._dashes(listed) if opt == "linecolor" else {}
                colours = [self._on_ramp(run, name) for run, name in listed]
                return replace(window, opts={**sizes, **dashes, **window.opts, opt: colours})
        if _compares(window):
            own = _by_run(window)
            each = [_DASHES[self._phases[name] % len(_DASHES)] for _, name in own]
            dashes = {"dash": each} if set(each) != {_DASHES[0]} else {}
            colours = [self._of_run(str(run)) for run, _ in own]
            return replace(window, opts={**sizes, **dashes, **window.opts, opt: colours})
        places = self._places(names)
        if places == list(range(len(names))):
            return window
        colours = [list(CYCLE[place % len(CYCLE)]) for place in places]
        return replace(window, opts={**window.opts, opt: colours})

    def _of_run(self, run: str) -> list[int]:
        place, count = self._runs[run], len(self._runs)
        return list(CYCLE[place]) if count <= FEW else ramp(place / (count - 1))

    def _on_ramp(self, run: str | None, name: str) -> list[int]:
        names = self._lists[run]
        return ramp(names.index(name) / max(1, len(names) - 1))

    def _dashes(self, listed: list[_Listed]) -> dict[str, list[str]]:
        """The dash opt that tells runs apart; empty if all traces are in one list."""
        if any(run is None for run, _ in listed):
            return {}
        dashes = dict(zip((run for run in self._lists if run is not None), cycle(_DASHES)))
        return {"dash": [dashes[run] for run, _ in listed if run is not None]}

    def _places(self, names: list[str]) -> list[int]:
        """Known names keep their colour's index, new ones get the first that is free here."""
        taken = {self._colours[name] for name in names if name in self._colours}
        free = (place for place in count() if place not in taken)
        for name in names:
            if name not in self._colours:
                self._colours[name] = next(free)
        return [self._colours[name] for name in names]


def _opt(window: Window) -> str | None:
    """The opt with the traces' colours; None if the plot type has none."""
    kind = TYPES.get(window.type)
    return None if kind is None else kind.colour_opt


def _names(window: Window) -> list[str]:
    plot = window.win.rpartition(".")[2]
    return [trace.name.replace(plot, "").strip("_/.- ") for trace in window.traces]


def _unlike(window: Window) -> list[str]:
    """The names of its traces, without the originals of smoothed lines."""
    return [trace.name for trace in window.traces if not trace.pale]


def _compares(window: Window) -> bool:
    """Whether it shows several runs with few lines each."""
    lines = Counter(trace.run for trace in window.traces if not trace.pale)
    return _opt(window) == "linecolor" and None not in lines and max(lines.values()) <= _PHASES


def _by_run(window: Window) -> list[_Listed]:
    """Each trace in the list of its run."""
    own = [replace(t, name=t.name.removeprefix(t.run or "").lstrip()) for t in window.traces]
    names = _names(replace(window, traces=tuple(own)))
    return [(trace.run, name) for trace, name in zip(own, names, strict=True)]


def _together(window: Window) -> list[_Listed]:
    """All traces in one list."""
    return [(None, name) for name in _names(window)]


def _listed(window: Window) -> list[_Listed]:
    """In the list of its run, if a run has more traces than there are runs; else in one list."""
    sizes = Counter(trace.run for trace in window.traces if not trace.pale)
    return _by_run(window) if max(sizes.values()) > len(sizes) else _together(window)
