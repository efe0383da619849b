"""Choose consistent colours and dashes for layers, runs and phases across windows, and their sizes.

In: windows. Out: windows, as plain data. Opts that the user has set are kept, and a window that
visdom would colour in the same way is unchanged.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from flexrec.replay.definitions.phases import PHASES
from flexrec.replay.plots.colours import CYCLE, paler, ramp
from flexrec.replay.plots.registry import TYPES
from flexrec.replay.plots.window import Trace, Window

FEW = 10
"""Up to this many traces have distinct colours; more are coloured along a ramp, in order."""

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""The dashes of phases, in order of appearance; the first is that of lines without a phase."""

_SOLID = ("", "train", "mean")  # phases whose lines are solid
_LARGE = {"width": 720, "height": 480}

_WORDS = "|".join((*PHASES, "mean", "std"))


class _Look(NamedTuple):
    """What decides how a trace looks.

    `subject` is what a colour stands for within a run, such as a layer; empty for the metric of the
    plot's name. `phase` is what a dash stands for.
    """

    run: str | None
    subject: str
    phase: str


class Palette:
    """Gives traces of one subject the same colour in all windows, and those of one phase a dash.

        windows = Palette().paint(windows)

    Of one run each subject, such as a layer, has a colour; if a window has more than `FEW`, the
    colour shows its position (in the model) on a ramp, and the window is larger. Of several runs
    each has a colour, and its layers have shades of it. A ramp or shades are spread over those
    subjects that windows show beside each other. The lines of a phase (train, test, …) have the
    colour of the run or layer and a dash of their own; so have mean and std.
    """

    def __init__(self) -> None:
        self._colours: dict[str, int] = {}  # of subjects in windows with few
        self._beside = defaultdict[str, set[str]](
            set
        )  # the subjects in one of these windows with it
        # Subjects in windows with many, or with several runs; each with the places of all that are
        # beside it, in order.
        self._ordered = dict[str, dict[str, int]]()
        self._runs: dict[str, int] = {}
        self._phases = {**dict.fromkeys(_SOLID, 0), "std": 1}
        self._known = len(self._phases)

    def paint(self, windows: Sequence[Window]) -> list[Window]:
        """Add colours to windows if visdom's defaults would not match those of other windows."""
        for window in windows:
            looks = _looks(window)
            for look in looks:
                if look.run is not None:
                    self._runs.setdefault(look.run, len(self._runs))
                self._phases.setdefault(look.phase, len(self._phases) - self._known + 1)
            subjects = list(dict.fromkeys(look.subject for look in looks if look.subject))
            if len(subjects) > FEW or (subjects and looks[0].run is not None):
                for run in dict.fromkeys(look.run for look in looks):
                    own = [look.subject for look in looks if look.run == run and look.subject]
                    self._insert(list(dict.fromkeys(own)))
            else:
                for subject in subjects:
                    self._beside[subject].update(subjects)
        return [self._painted(window) for window in windows]

    def _insert(self, subjects: list[str]) -> None:
        """Add new subjects of a run, each after the one before it in this window."""
        orders = {id(order): order for s in subjects if (order := self._ordered.get(s))}
        last, after = "", dict[str, list[str]]()  # new ones by the known one before them
        for subject in subjects:
            if subject in self._ordered:
                last = subject
            else:
                after.setdefault(last, []).append(subject)
        if after or len(orders) > 1:
            every = after.get("", [])
            for subject in (subject for order in orders.values() for subject in order):
                every += [subject, *after.get(subject, ())]
            places = {subject: place for place, subject in enumerate(every)}
            self._ordered |= dict.fromkeys(places, places)

    def _painted(self, window: Window) -> Window:
        kind, looks = TYPES.get(window.type), _looks(window)
        if not looks or kind is None or {"linecolor", "markercolor"} & set(window.opts):
            return window
        colours = self._colours_of(looks)
        found: dict[str, object] = {}
        if kind.colour_opt and colours != [list(CYCLE[k % len(CYCLE)]) for k in range(len(looks))]:
            found[kind.colour_opt] = colours
        if any(look.phase for look in looks):
            dashes = [DASHES[self._phases[look.phase] % len(DASHES)] for look in looks]
            found |= {"dash": dashes} if set(dashes) != {DASHES[0]} else {}
        if sum(not trace.pale for trace in window.traces) > FEW:
            found |= _LARGE
        return replace(window, opts={**found, **window.opts}) if found else window

    def _colours_of(self, looks: Sequence[_Look]) -> list[list[int]]:
        if all(look.run is not None for look in looks):
            return [self._shade(str(look.run), look.subject) for look in looks]
        subjects = [look.subject for look in looks]
        if all(subject in self._ordered for subject in subjects):
            return [ramp(self._part(subject)) for subject in subjects]
        return [list(CYCLE[place % len(CYCLE)]) for place in self._places(subjects)]

    def _shade(self, run: str, subject: str) -> list[int]:
        """The run's colour; that of later subjects is paler."""
        place, runs = self._runs[run], len(self._runs)
        colour = list(CYCLE[place]) if runs <= FEW else ramp(place / (runs - 1))
        return paler(colour, self._part(subject)) if subject else colour

    def _part(self, subject: str) -> float:
        """The place of a subject among those beside it, from 0 to 1."""
        places = self._ordered[subject]
        return places[subject] / max(1, len(places) - 1)

    def _places(self, subjects: Sequence[str]) -> list[int]:
        """The index of each subject's colour: the first that nothing beside it has anywhere."""
        for name in subjects:
            if name not in self._colours:
                others = {*subjects, *self._beside[name]} & self._colours.keys()
                taken = {self._colours[other] for other in others}
                self._colours[name] = next(place for place in count() if place not in taken)
        return [self._colours[name] for name in subjects]


def _looks(window: Window) -> list[_Look]:
    """What decides how each trace looks; nothing if the plot type has no colours of traces, or
    shows the latest values alone, as bars do: their colours go by their order."""
    kind = TYPES.get(window.type)
    if kind is None or kind.colour_opt is None or kind.history is None:
        return []
    has_dashes = kind.colour_opt == "linecolor" and "dash" in kind.opts
    plot = window.win.rpartition(".")[2].lower()
    looks = [_look(trace, plot, has_dashes) for trace in window.traces]
    # Lines that would look the same, such as a bare loss and that of train, are told apart.
    names = dict[_Look, str]()
    named = list(zip(looks, (trace.name for trace in window.traces), strict=True))
    for look, name in sorted(named, key=lambda pair: not pair[0].phase):
        names.setdefault(_solid(look), name)
    return [
        look if names[_solid(look)] == name else look._replace(subject=name) for look, name in named
    ]


def _solid(look: _Look) -> _Look:
    """The look, without a phase if that is as solid as a line without one."""
    return look._replace(phase="") if look.phase in _SOLID else look


def _look(trace: Trace, plot: str, has_dashes: bool) -> _Look:
    name = trace.name.removeprefix(trace.run or "").lstrip()
    found = _phased(re.escape(trace.phase) or _WORDS).fullmatch(name)
    if found is None:
        return _Look(trace.run, "" if name.lower() == plot and has_dashes else name, "")
    phase = (found["first"] or found["last"]).lower()
    subject = found["of"] or found["name"] or ""
    subject = "" if subject.lower() == plot else subject
    return (
        _Look(trace.run, subject, phase)
        if has_dashes
        else _Look(trace.run, f"{phase} {subject}", "")
    )


@lru_cache(64)
def _phased(words: str) -> re.Pattern[str]:
    """Matches a name that begins or ends with one of these words."""
    first = rf"(?P<first>{words})(?:[_/\- ](?P<of>.+))?"
    return re.compile(rf"{first}|(?P<name>.+)[_/\- ](?P<last>{words})", re.I | re.S)
