"""How windows look beside one another: colours and dashes that stay with a layer or a run, sizes.

Windows in, windows out, as plain data. What the user has said in a window's opts is left alone,
and so is a window that visdom would colour in the same way by itself.
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
"""Up to so many traces have a colour each; more go along a ramp, in their order."""

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_PHASES = 3  # lines of a run, at most, that dashes tell apart
_LARGE = {"width": 720, "height": 480}


_Listed: TypeAlias = tuple[str | None, str]
"""The list that a trace stands in, and its name there."""


class Palette:
    """Gives traces of one name one colour in all windows that it is shown.

        windows = Palette().paint(windows)

    A name is taken without the plot's own, so that `train_loss` in the plot `loss` and
    `train_acc` in the plot `acc` go together. Of several runs with few lines each, as those of two
    phases, each run has a colour and each phase a dash. In plots of more than `FEW` traces (the
    layers of a deep model) the colour says how far down the model a trace stands, and the window is
    larger; of several runs each has a list and a dash of its own then, unless they are more than
    its traces.
    """

    def __init__(self) -> None:
        self._colours: dict[str, int] = {}
        self._lists: dict[str | None, list[str]] = {}  # of each run, or None for all, the names
        self._runs: dict[str, int] = {}  # of those with few lines each, their colours
        self._phases = {"": 0, "train": 0}  # and the dashes of their lines

    def paint(self, windows: Sequence[Window]) -> list[Window]:
        """The windows, with colours where visdom's own would not fit those of other windows."""
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
                    if name not in names:  # it comes after the one that it follows here
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
        """The opt that tells runs apart; none where all is of one list."""
        if any(run is None for run, _ in listed):
            return {}
        dashes = dict(zip((run for run in self._lists if run is not None), cycle(_DASHES)))
        return {"dash": [dashes[run] for run, _ in listed if run is not None]}

    def _places(self, names: list[str]) -> list[int]:
        """Known names keep their place, new ones take the first that is free here."""
        taken = {self._colours[name] for name in names if name in self._colours}
        free = (place for place in count() if place not in taken)
        for name in names:
            if name not in self._colours:
                self._colours[name] = next(free)
        return [self._colours[name] for name in names]


def _opt(window: Window) -> str | None:
    """The opt that colours its traces; None where they have no colours of their own."""
    kind = TYPES.get(window.type)
    return None if kind is None else kind.colour_opt


def _names(window: Window) -> list[str]:
    plot = window.win.rpartition(".")[2]
    return [trace.name.replace(plot, "").strip("_/.- ") for trace in window.traces]


def _unlike(window: Window) -> list[str]:
    """The names of its traces, those that are smoothed once."""
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
    """In the list of its run, where a run has more traces than there are runs; else in one."""
    sizes = Counter(trace.run for trace in window.traces if not trace.pale)
    return _by_run(window) if max(sizes.values()) > len(sizes) else _together(window)
