"""How windows look beside one another: colours that stay with a layer or a run, and sizes.

Windows in, windows out, as plain data. What the user has said in a window's opts is left alone,
and so is a window that visdom would colour in the same way by itself.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from flexrec.replay.window import Window

__all__ = ["CYCLE", "FEW", "Palette", "ramp"]

FEW = 10
"""Up to so many traces have a colour each; more go along a ramp, in their order."""

CYCLE = (
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (127, 127, 127),
    (188, 189, 34),
    (23, 190, 207),
)
"""The colours that plotly gives to traces, in order."""

# Dark to light, without the palest end: lines must stand out from white.
_RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (230, 190, 40))
_OPT = {"line": "linecolor", "scatter": "markercolor", "stem": "linecolor"}
_LARGE = {"width": 720, "height": 480}


class Palette:
    """Gives traces of one name one colour in all windows that it is shown.

        windows = Palette().paint(windows)

    A name is taken without the plot's own, so that `train_loss` in the plot `loss` and
    `train_acc` in the plot `acc` go together. In plots of more than `FEW` traces (the layers of a
    deep model) the colour says how far down the list a trace stands, and the window is larger.
    """

    def __init__(self) -> None:
        self._colours: dict[str, int] = {}
        self._deep: dict[str, int] = {}

    def paint(self, windows: Sequence[Window]) -> list[Window]:
        """The windows, with colours where visdom's own would not fit those of other windows."""
        for window in windows:
            if window.type in _OPT and len(window.traces) > FEW:
                for name in _names(window):
                    self._deep.setdefault(name, len(self._deep))
        return [self._painted(window) for window in windows]

    def _painted(self, window: Window) -> Window:
        opt = _OPT.get(window.type)
        if opt is None or {opt, "linecolor", "markercolor"} & set(window.opts):
            return window
        names = _names(window)
        if self._deep and all(name in self._deep for name in names):
            last = max(1, len(self._deep) - 1)
            colours = [ramp(self._deep[name] / last) for name in names]
            sizes = _LARGE if len(names) > FEW else {}
            return replace(window, opts={**sizes, **window.opts, opt: colours})
        places = self._places(names)
        if places == list(range(len(names))):
            return window
        colours = [list(CYCLE[place % len(CYCLE)]) for place in places]
        return replace(window, opts={**window.opts, opt: colours})

    def _places(self, names: list[str]) -> list[int]:
        """Known names keep their place, new ones take the first that is free here."""
        taken = {self._colours[name] for name in names if name in self._colours}
        free = (place for place in count() if place not in taken)
        for name in names:
            if name not in self._colours:
                self._colours[name] = next(free)
        return [self._colours[name] for name in names]


def ramp(part: float) -> list[int]:
    """The colour at a part, 0 to 1, of the way from the first to the last.

    >>> ramp(0.0), ramp(1.0)
    ([68, 1, 84], [230, 190, 40])
    """
    at = part * (len(_RAMP) - 1)
    k = min(int(at), len(_RAMP) - 2)
    low, high = _RAMP[k], _RAMP[k + 1]
    return [round(a + (b - a) * (at - k)) for a, b in zip(low, high, strict=True)]


def _names(window: Window) -> list[str]:
    plot = window.win.rpartition(".")[2]
    return [trace.name.replace(plot, "") for trace in window.traces]
