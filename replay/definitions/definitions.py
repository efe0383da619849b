"""Plots and meters as checked, plain data, from Python dicts or a TOML file. Nothing is run here.

The names in a definition are checked at once, so that a wrong name is reported, with the nearest
right one, before anything is plotted.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from operator import itemgetter
from types import MappingProxyType
from typing import Any, TypeAlias, cast

from flexrec.recorder.errors import DefinitionError, listed, nearest
from flexrec.recorder.events import Reduction
from flexrec.replay.definitions.phases import (
    PHASES,
    fnmatch_patterns,
    is_phased,
    metric_of,
    part_of,
    phase_of,
    written,
)
from flexrec.replay.meters import Meter, build, resolve
from flexrec.replay.plots.registry import plot_type

Table: TypeAlias = Mapping[str, Any]

X_AXES = ("mark", "step", "time", "relative")
"""What x axes can show: the x of each log, its step, its time, or its time since the start."""

_NONE: Mapping[str, str] = MappingProxyType({})
_PLACEHOLDERS = ("key", "layer", "source", "stat")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_PATTERN, _ESCAPED = re.compile(r"[*?\[]"), re.compile(r"\[([*?[])\]")
_METER = (
    *("type", "target", "key", "field", "args", "label"),
    *("exclude", "only", "optional", "reset"),
)


@dataclass(frozen=True)
class PlotDefinition:
    """A plot: its name, type and opts. A name with placeholders gives a window per expansion."""

    name: str
    type: str
    opts: Mapping[str, Any] = field(default_factory=dict)
    env: str | None = None
    win: str | None = None


@dataclass(frozen=True)
class MeterDefinition:
    """A meter, and the plots that it is drawn in.

    Attributes:
        name: its name in `log` and `reset`; may be a pattern.
        key: the recorded key that feeds it: a name, a pattern with `*`, `?` or `[…]`, or a metric
            of a phase, as `{train}_loss`, in any spelling (see phases.py).
        type: a meter's name, dotted path or class.
        args: the arguments of its constructor.
        targets: the plots that it is drawn in.
        field: which of the meter's results is drawn; the first by default.
        label: the name in the legend; by default the meter's name, or the key for a pattern.
        exclude: patterns of keys that do not feed it, though `key` matches them.
        only: groups of patterns; a key must also match one pattern of each group. Empty: no limit.
        optional: if true, no warning is given if no key feeds it.
        reset: whether marks that reset also reset this meter; if false, it runs across them.
        phase: the phase of its key, such as train, if that is known.
    """

    name: str
    key: str
    type: Any
    args: Mapping[str, Any]
    targets: tuple[str, ...]
    field: str | None = None
    label: str | None = None
    exclude: tuple[str, ...] = ()
    only: tuple[tuple[str, ...], ...] = ()
    optional: bool = False
    reset: bool = True
    phase: str = ""

    @property
    def is_pattern(self) -> bool:
        """Whether several keys may feed it; each key then has its own meter."""
        return _PATTERN.search(self.key) is not None

    @property
    def only_key(self) -> str | None:
        """The one key that may feed it; None if there may be others."""
        is_one = not (self.is_phased or _PATTERN.search(_ESCAPED.sub("", self.key)))
        return _ESCAPED.sub(r"\1", self.key) if is_one else None

    @cached_property
    def is_phased(self) -> bool:
        """Whether its key is a metric of a phase, such as `{train}_loss`."""
        return is_phased(self.key)

    def matches(self, key: str) -> bool:
        """Whether the key feeds it."""
        if self.is_phased:
            is_its = part_of(self.key, key) is not None
        else:
            is_its = fnmatchcase(key, self.key) if self.is_pattern else key == self.key
        if not is_its or (self.exclude and _fits(key, self.exclude)):
            return False
        return all(_fits(key, group) for group in self.only)

    def build(self) -> Meter:
        """Make a new meter."""
        return build(self.type, dict(self.args))

    def label_for(self, key: str, classes: Mapping[str, str] = _NONE) -> str:
        """The name in the legend of the trace that the key feeds; see `expand` for `classes`."""
        if self.label is None:
            return key if self.is_pattern or self.is_phased else self.name
        part = part_of(self.key, key) if self.is_phased else None
        return expand(self.label, key, classes) + (f" {part}" if part else "")


@dataclass(frozen=True)
class Auto:
    """A request to draw all keys of a recording, which are known only at replay.

    Attributes:
        phases: the phases to look for in the keys.
        only: groups of patterns, as in MeterDefinition.
        opts: opts for every plot of points that has them.
    """

    phases: tuple[str, ...] = PHASES
    only: tuple[tuple[str, ...], ...] = ()
    opts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Definitions:
    """Plots and meters by name, in the order of their windows and traces.

    Attributes:
        plots, meters: by name.
        auto: how to draw keys that no meter takes, as the preset `auto` does; None: not at all.
        x: what the x axes show, one of `X_AXES`.
    """

    plots: Mapping[str, PlotDefinition] = field(default_factory=dict)
    meters: Mapping[str, MeterDefinition] = field(default_factory=dict)
    auto: Auto | None = None
    x: str = X_AXES[0]

    def __repr__(self) -> str:
        plots, meters = listed(self.plots) or "none", listed(self.meters) or "none"
        return f"<Definitions: plots {plots}; meters {meters}>"

    def __add__(self, other: "Definitions") -> "Definitions":
        """Combine both; a meter of the same name in both draws into the plots of both."""
        meters = dict(self.meters)
        for name, meter in other.meters.items():
            if name in meters:
                if replace(meters[name], targets=meter.targets) != meter:
                    raise DefinitionError(f"meter {name!r} is defined twice, and differently")
                targets = dict.fromkeys(meters[name].targets + meter.targets)
                meter = replace(meter, targets=tuple(targets))
            meters[name] = meter
        for name, plot in other.plots.items():
            if self.plots.get(name, plot) != plot:
                raise DefinitionError(f"plot {name!r} is defined twice, and differently")
        x = other.x if self.x == X_AXES[0] else self.x
        return Definitions({**self.plots, **other.plots}, meters, self.auto or other.auto, x)

    def beside(self, other: "Definitions") -> "Definitions":
        """These definitions, with other names where `other` defines something else by a name.

        Their windows and meters then stay what they are in a sum of both.
        """
        plots = {
            name: name if other.plots.get(name, plot) == plot else f"{name} (auto)"
            for name, plot in self.plots.items()
        }
        meters = {}
        for name, meter in self.meters.items():
            moved = replace(meter, targets=tuple(plots[target] for target in meter.targets))
            known = other.meters.get(name, moved)
            if replace(known, targets=moved.targets) != moved:
                moved = replace(moved, name=f"{name} (auto)")
            meters[moved.name] = moved
        renamed = {
            plots[name]: replace(plot, name=plots[name]) for name, plot in self.plots.items()
        }
        return replace(self, plots=renamed, meters=meters)

    def asked(self) -> list[str]:
        """The patterns of `only` that are on every meter: those that a user has asked for."""
        first, *others = (meter.only for meter in self.meters.values())
        groups = [group for group in first if all(group in only for only in others)]
        return list(dict.fromkeys(name for group in groups for name in group))

    def only(self, patterns: Sequence[str]) -> "Definitions":
        """These definitions, fed only by keys that match one of the patterns."""
        group = tuple(patterns)
        meters = {
            name: replace(meter, only=(*meter.only, group)) for name, meter in self.meters.items()
        }
        auto = self.auto and replace(self.auto, only=(*self.auto.only, group))
        return replace(self, meters=meters, auto=auto)

    def with_opts(self, opts: Mapping[str, Any]) -> "Definitions":
        """These definitions, with the opts added to every plot of points that has them."""
        plots = {}
        for name, plot in self.plots.items():
            kind = plot_type(plot.type)
            known = {k: v for k, v in opts.items() if kind.accumulates and k in kind.opts}
            kind.check_opts(known)
            plots[name] = replace(plot, opts={**plot.opts, **known})
        auto = self.auto and replace(self.auto, opts={**self.auto.opts, **opts})
        return replace(self, plots=plots, auto=auto)

    def along(self, x: str) -> "Definitions":
        """These definitions, with x axes that show something else, of `X_AXES`.

        Raises:
            DefinitionError: there is no such axis.
        """
        if x not in X_AXES:
            names = ", ".join(X_AXES)
            raise DefinitionError(f"x is one of {names}, not {x!r}{nearest(str(x), X_AXES)}")
        dates = {"xtype": "date"} if x == "time" else {}
        plots = {}
        for name, plot in self.plots.items():
            kind = plot_type(plot.type)
            is_over_marks = kind.history is not None and kind.history.is_over_marks
            own = dates if is_over_marks and "xtype" in kind.opts else {}
            plots[name] = replace(plot, opts={**plot.opts, **own})
        auto = self.auto and replace(self.auto, opts={**self.auto.opts, **dates})
        return replace(self, plots=plots, auto=auto, x=x)

    def takes(self, key: str) -> bool:
        """Whether some meter takes the key."""
        return bool(self.taking(key))

    def taking(self, key: str) -> list[tuple[int, MeterDefinition]]:
        """The meters that the key feeds, each with its index, in their order."""
        near = [*self._by_key.get(key, ()), *self._by_key.get(None, ())]
        return sorted(((i, meter) for i, meter in near if meter.matches(key)), key=itemgetter(0))

    @cached_property
    def _by_key(self) -> dict[str | None, list[tuple[int, MeterDefinition]]]:
        """The meters by the only key that may feed them, so that many keys need no long search."""
        found: dict[str | None, list[tuple[int, MeterDefinition]]] = {}
        for i, meter in enumerate(self.meters.values()):
            found.setdefault(meter.only_key, []).append((i, meter))
        return found

    def by_plot(self, keys: Iterable[str] = ()) -> dict[str, list[str]]:
        """The names of each plot's meters, without optional meters that none of the keys feeds."""
        there = tuple(keys)
        drawn = {
            name: meter
            for name, meter in self.meters.items()
            if not meter.optional or any(map(meter.matches, there))
        }
        named = {plot: [n for n, m in drawn.items() if plot in m.targets] for plot in self.plots}
        fed = {plot for meter in self.meters.values() for plot in meter.targets}
        return {plot: names for plot, names in named.items() if names or plot not in fed}

    def wanted(self) -> list[str]:
        """The keys and patterns that feed the meters that are not optional; of all if all are."""
        meters = self.meters.values()
        needed = [meter for meter in meters if not meter.optional] or list(meters)
        return list(dict.fromkeys(written(meter.key) for meter in needed))

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys and patterns of meters that none of these keys matches.

        A preset takes any phases that there are: a metric of a preset is missing only if it is
        there in no phase.
        """
        there, found = tuple(keys), dict[str, bool]()
        for meter in self.meters.values():
            found[meter.key] = any(map(replace(meter, only=()).matches, there))
        any_phase = {metric_of(m.key) for m in self.meters.values() if m.is_phased and m.optional}
        of_a_phase = {metric_of(key) for key, is_there in found.items() if is_there}
        needed = dict.fromkeys(meter.key for meter in self.meters.values() if not meter.optional)
        return [
            written(key)
            for key in needed
            if not found[key] and metric_of(key) not in any_phase & of_a_phase
        ]

    def reductions(self) -> dict[str, Reduction]:
        """The reductions for `Recorder(reduce=…)` that suffice to play these definitions.

            >>> from flexrec.replay import preset
            >>> kept = preset("MSE", phases="train").reductions()
            >>> [f"{key}: {meter}" for key, meter in kept.items()]
            ['train[_/.-]mse: MSEMeter()', 'mse[_/.-]train: MSEMeter()']

        Keys and patterns are left out if a meter needs their values, or if only some of a pattern's
        keys feed the meter.

        Raises:
            DefinitionError: two meters of one key need different reductions.
        """
        needed: dict[str, set[Reduction | None]] = {}
        for meter in self.meters.values():
            built = meter.build()
            if not built.counts_only:
                kind = None if meter.exclude or meter.only else built.reduction
                needed.setdefault(meter.key, set()).add(kind)
        reduced: dict[str, Reduction] = {}
        for key in needed:
            kinds = set[Reduction | None]()
            for other in needed:
                if _means(other, written(key)) or _means(key, written(other)):
                    kinds |= needed[other]
            if None in kinds:
                continue
            if len(kinds) > 1:
                names = " and ".join(sorted(map(str, kinds)))
                raise DefinitionError(f"{key!r} feeds {names}: it cannot be reduced for both")
            reduced |= dict.fromkeys(fnmatch_patterns(key), cast("Reduction", kinds.pop()))
        return reduced

    def tables(self) -> dict[str, dict[str, Any]]:
        """Convert to plain dicts, as `define` takes them."""
        return {
            "plots": {name: _plot_table(plot) for name, plot in self.plots.items()},
            "meters": {name: _meter_table(meter) for name, meter in self.meters.items()},
        }


def define(plots: Table, meters: Table, *, where: str = "") -> Definitions:
    """Check plots and meters given as dicts.

    >>> defs = define(
    ...     {"loss": {"type": "line", "opts": {"title": "Loss"}}},
    ...     {"train_loss": {"type": "AverageValueMeter", "target": "loss"}},
    ... )
    >>> defs.meters["train_loss"].targets
    ('loss',)

    Args:
        plots: name → {"type": …, "opts": {…}}; `opts` are visdom's opts, `env` and `win`.
        meters: name → {"type": …, "target": plot or plots, "key": …, "field": …,
            "args": {…}, "label": …, "exclude": patterns, "only": patterns, "optional": bool,
            "reset": bool}; type and target are required. `{key}`, `{layer}`, `{source}` and
            `{stat}` in targets, plots' names, titles and labels stand for parts of a matched key
            `layer/source/stat`. With `reset` false a meter runs across marks. The key
            `{train}_loss` matches train_loss, loss/train and other spellings.
        where: a prefix of every error message, such as the file's name.

    Raises:
        DefinitionError: a definition is wrong; names the place, the fault, and the nearest right
            name.
    """
    try:
        checked = {name: _plot(name, table) for name, table in named_tables(plots, "plots").items()}
        return Definitions(
            checked,
            {
                name: _meter(name, table, checked)
                for name, table in named_tables(meters, "meters").items()
            },
        )
    except DefinitionError as error:
        raise DefinitionError(f"{where}: {error}" if where else str(error)) from None


def expand(template: str, key: str, classes: Mapping[str, str] = _NONE) -> str:
    """Replace the placeholders by the parts of a key `layer/source/stat`.

    >>> expand("{source} of {layer}", "conv1/grad_in/std")
    'grad_in of conv1'
    >>> expand("{layer}", "conv1/grad_in/std", {"conv1": "Conv2d"})
    'conv1 Conv2d'

    Args:
        template: the text.
        key: the key.
        classes: the classes of layers, which follow their names.
    """
    parts = key.rsplit("/", 2)
    if len(parts) == 2:  # `layer/activations`
        parts = [*parts, ""]
    layer, source, stat = parts if len(parts) == 3 else (key, "", "")
    shown = f"{layer} {classes[layer]}" if layer in classes else layer
    values = {"key": key, "layer": shown, "source": source, "stat": stat}
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


def _means(wanted: str, key: str) -> bool:
    """Whether a meter's key matches a recorded key, or is the same pattern."""
    if is_phased(wanted):
        return part_of(wanted, key) is not None
    return wanted == key or fnmatchcase(key, wanted)


def _fits(key: str, patterns: Iterable[str]) -> bool:
    """Whether the key is one of the patterns, or matches one."""
    return any(key == pattern or fnmatchcase(key, pattern) for pattern in patterns)


def named_tables(tables: object, what: str) -> dict[str, Table]:
    """The tables by name; DefinitionError, at the place `what`, if they are something else."""
    if not isinstance(tables, Mapping):
        raise DefinitionError(f"{what} must be a table, got {type(tables).__name__}")
    for name, table in tables.items():
        if not isinstance(name, str):
            raise DefinitionError(f"{what}: names must be strings, got {type(name).__name__}")
        if not isinstance(table, Mapping):
            raise DefinitionError(f"{what}.{name} must be a table, got {type(table).__name__}")
    return dict(tables)


def _plot(name: str, table: Table) -> PlotDefinition:
    where = f"plots.{name}"
    _check_placeholders(where, name)
    named = _text(where, table, "type")
    try:
        kind = plot_type(named)
    except DefinitionError as error:
        raise DefinitionError(f"{where}.type: {error}") from None
    misplaced = next((key for key in table if key in kind.opts or key in ("env", "win")), None)
    if misplaced is not None:
        raise DefinitionError(f"{where}: {misplaced!r} belongs in opts = {{ {misplaced} = … }}")
    check_names(where, table, ("type", "opts"))
    opts = table.get("opts", {})
    if not isinstance(opts, Mapping):
        raise DefinitionError(f"{where}.opts must be a table, got {type(opts).__name__}")
    own = {key: value for key, value in opts.items() if key not in ("env", "win")}
    try:
        kind.check_opts(own)
    except DefinitionError as error:
        raise DefinitionError(f"{where}.opts: {error}") from None
    env, win = (
        _text(f"{where}.opts", opts, key) if key in opts else None for key in ("env", "win")
    )
    return PlotDefinition(name, kind.name, own, env, win)


def _meter(name: str, table: Table, plots: Mapping[str, PlotDefinition]) -> MeterDefinition:
    where = f"meters.{name}"
    check_names(where, table, _METER)
    if "type" not in table:
        raise DefinitionError(f"{where} needs a type: a meter's name (flexrec meters lists them)")
    targets = _names(where, table, "target")
    if not targets:
        raise DefinitionError(f"{where} needs a target: the plot that it is drawn in")
    for target in targets:
        if target not in plots:
            raise DefinitionError(
                f"{where}.target: there is no plot {target!r}{nearest(str(target), plots)}"
            )
    label = _text(where, table, "label") if "label" in table else None
    _check_placeholders(f"{where}.label", label or "")
    return replace(fed_meter(where, name, table), targets=targets, label=label)


def fed_meter(where: str, name: str, table: Table) -> MeterDefinition:
    """Check what a table says of a meter and of the keys that feed it; it is drawn nowhere.

    Raises:
        DefinitionError: as `define`; `where` is the place that it names.
    """
    args = table.get("args", {})
    if not isinstance(args, Mapping):
        raise DefinitionError(f"{where}.args must be a table, got {type(args).__name__}")
    key = _text(where, table, "key") if "key" in table else name
    chosen = _text(where, table, "field") if "field" in table else None
    exclude = _names(where, table, "exclude")
    only = table.get("only", ())
    if only and isinstance(only, (list, tuple)) and all(isinstance(g, (list, tuple)) for g in only):
        groups = tuple(_names(where, {"only": group}, "only") for group in only)
    else:
        groups = (_names(where, table, "only"),) if only else ()
    optional, reset = (_truth(where, table, *of) for of in (("optional", False), ("reset", True)))
    try:
        fields = build(resolve(table["type"]), dict(args)).fields
    except DefinitionError as error:
        raise DefinitionError(f"{where}: {error}") from None
    if chosen is not None and chosen not in fields:
        raise DefinitionError(
            f"{where}.field: the meter has no {chosen!r}, it has {', '.join(fields)}"
        )
    return MeterDefinition(
        *(name, key, table["type"], dict(args), (), chosen),
        exclude=exclude,
        only=groups,
        optional=optional,
        reset=reset,
        phase=phase_of(key),
    )


def _truth(where: str, table: Table, key: str, default: bool) -> bool:
    value = table.get(key, default)
    if not isinstance(value, bool):
        raise DefinitionError(f"{where}.{key} must be true or false, got {value!r:.40}")
    return value


def _names(where: str, table: Table, key: str) -> tuple[str, ...]:
    """The name or names given under a key, each once."""
    value = table.get(key, ())
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) and n for n in names):
        raise DefinitionError(f"{where}.{key} must be a name or a list of names, got {value!r:.60}")
    return tuple(dict.fromkeys(names))


def _text(where: str, table: Table, key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        came = "nothing" if value is None else f"{type(value).__name__} {value!r:.40}"
        raise DefinitionError(f"{where}.{key} must be a name, got {came}")
    return value


def check_names(where: str, table: Table, known: tuple[str, ...]) -> None:
    """Raise DefinitionError, with the nearest known name, if the table has an unknown key."""
    for name in table:
        if name not in known:
            raise DefinitionError(
                f"{where}: unknown key {name!r}{nearest(str(name), known)} "
                f"(there are {', '.join(known)})"
            )


def _check_placeholders(where: str, template: str) -> None:
    for name in _PLACEHOLDER.findall(template):
        if name not in _PLACEHOLDERS:
            raise DefinitionError(
                f"{where}: unknown placeholder {{{name}}}; there are "
                + ", ".join(f"{{{known}}}" for known in _PLACEHOLDERS)
            )


def _plot_table(plot: PlotDefinition) -> dict[str, Any]:
    places = {"env": plot.env, "win": plot.win}
    opts = {**plot.opts, **{key: value for key, value in places.items() if value is not None}}
    return {"type": plot.type, **({"opts": opts} if opts else {})}


def _meter_table(meter: MeterDefinition) -> dict[str, Any]:
    table: dict[str, Any] = {"type": meter.type}
    if meter.key != meter.name:
        table["key"] = meter.key
    for name in ("field", "label", "args", "optional"):
        if getattr(meter, name):
            table[name] = getattr(meter, name)
    if not meter.reset:
        table["reset"] = False
    for name, names in (("target", meter.targets), ("exclude", meter.exclude)):
        if names:
            table[name] = names[0] if len(names) == 1 else list(names)
    if meter.only:
        groups = [list(group) for group in meter.only]
        table["only"] = groups[0] if len(groups) == 1 else groups
    return table
