"""Find the cause of a difference from the traces of two runs; docs/diff.md explains the rules.

The first event that differs, in the recorded order, decides. Attributes, random states, the config
and the environment can explain it, but are never a difference by themselves.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from statistics import median

from flexrec.recorder.layers.tracing.format import NUMBERS, Event
from flexrec.replay.diff.blame.settings import changes
from flexrec.replay.diff.blame.traces import SIDE, Key, TracedPair, TracedStep, differing
from flexrec.replay.diff.model import Blame, Change, Shown, Stage, shown_apart

_OF_WEIGHTS = ("grad", "new_weights", "new_buffers")
_STAGES: dict[str, Stage] = {
    "data": "data",
    "loss": "loss",
    "value": "metric",
    "settings": "optimizer",
    "new_weights": "optimizer",
    "new_buffers": "weights",
}
_OF_OPTIMIZER = ("grad_norm", "grad", "state", "settings", "new_weights")
_FORKS = ("inputs", "outputs", "loss", "settings", "raw_grad", "grad_out")
_ODD = 3e-7  # relative error of a ratio of norms that shows that only one gradient was changed
_GAP = "in steps that were not traced; run both again from the equal step, with every=1"


class Step:
    """A step that differs between two runs, with methods to examine it.

    Args:
        pair: the step of both runs.
        config: entries of the config that differ.
    """

    def __init__(self, pair: TracedPair, config: Sequence[Change]) -> None:
        self.pair, self.config = pair, config
        self.a, self.b = pair.a, pair.b
        self.values = pair.a.by_key(), pair.b.by_key()
        self.differ = differing(pair.a, pair.b)
        self.events = _together(self.a.events, self.b.events)
        self.real = [e for e in self.events if e.key in self.differ and e.kind not in SIDE]

    @property
    def gap(self) -> int:
        """The number of steps between this and the previous one; 0 if there is no previous one."""
        return 0 if self.pair.previous is None else self.a.step - self.pair.previous

    @cached_property
    def parents(self) -> set[str]:
        """The modules that called others."""
        return {event.parent for event in self.events}

    def differs(self, kind: str, layer: str, call: int = 0, part: str = "") -> bool:
        """Whether an event differs."""
        return (kind, layer, part, call) in self.differ

    def attributes(self, layer: str) -> str:
        """The attributes of a layer that differ, in words; empty if none does."""
        one, other = (step.attributes.get(layer, {}) for step in (self.a, self.b))
        return ", ".join(f"{c.name} {c.a} -> {c.b}" for c in changes(one, other))

    def surroundings(self) -> str:
        """The entries of config and environment that may be the cause, in words; empty: none."""
        found = list(self.pair.environment())
        is_new = self.pair.previous is None or (found and self.pair.had_environment)
        if not is_new:
            return ""
        found += self.config if self.pair.previous is None else ()
        return ", ".join(f"{c.name} {c.a} -> {c.b}" for c in found)

    def layers(self, kind: str) -> list[str]:
        """The layers for which events of a kind differ."""
        return list(dict.fromkeys(e.layer for e in self.real if e.kind == kind))

    def layers_beside(self, event: Event) -> set[str]:
        """The layers of the same model that have events of the same kind."""
        model = model_of(event.layer, self.pair)
        kind = {each.layer for each in self.events if each.kind == event.kind}
        return {layer for layer in kind if model_of(layer, self.pair) == model}

    def changed_layers(self) -> list[str]:
        """The layers whose attributes differ."""
        found = [e.layer for e in self.events if e.kind == "attributes" and e.key in self.differ]
        return [layer for layer in found if self.attributes(layer)]

    def shown(self, event: Event) -> tuple[Shown, Shown]:
        """The values of an event as they are shown; a fingerprint in hexadecimal."""
        return self._shown(event, self.a, 0), self._shown(event, self.b, 1)

    def _shown(self, event: Event, step: TracedStep, side: int) -> Shown:
        value = self.values[side].get(event.key)
        if value is None:
            return None
        group, _, name = event.part.partition(".")
        text = step.attributes.get(f"{event.layer}.{group}", {}).get(name)
        if event.kind == "settings" and text is not None:
            return text
        if event.kind in NUMBERS:
            return float(struct.unpack("<d", struct.pack("<q", value))[0])
        return f"#{value:x}"


def blame_traced(
    pair: TracedPair, config: Sequence[Change], *, is_late: bool = False
) -> tuple[Blame, Shown, Shown]:
    """Find the cause of a step that differs, and the values of the event that decides.

    If only attributes or random states differ, they are the cause.

    Args:
        pair: the step of both runs.
        config: entries of the config that differ.
        is_late: whether it is the first traced step, but earlier ones are known to be equal.
    """
    step = Step(pair, config)
    other_way = _other_model(step) or _fork(step)
    if other_way is not None:
        return other_way, None, None
    if not step.real:
        return _explanation(step), None, None
    event = step.real[0]
    a, b = step.shown(event)
    is_of_start = event.kind in ("weights", "buffers") and not event.call
    is_gap = (step.gap > 1 or is_late) and is_of_start
    if is_gap:
        return _in_between(step, event), a, b
    is_missing = None in (a, b) and event.kind not in ("state", "weights")
    return (_missing if is_missing else _RULES.get(event.kind, _value))(step, event), a, b


def lasting_changes(pair: TracedPair) -> str:
    """The attributes and settings that differ at a traced step, in words; empty: none do."""
    step = Step(pair, ())
    found = [f"{layer}: {step.attributes(layer)}" for layer in step.changed_layers()]
    settings = next((event for event in step.real if event.kind == "settings"), None)
    if settings is not None:
        found.append(_settings(step, settings).cause)
    return "; ".join(found)


def _together(a: Sequence[Event], b: Sequence[Event]) -> list[Event]:
    """The events of both runs in the order of time; those that only `b` has stand as in `b`."""
    have = {event.key for event in a}
    place: Key | None = None
    added: dict[Key | None, list[Event]] = {}
    for event in b:
        if event.key in have:
            place = event.key
        else:
            added.setdefault(place, []).append(event)
    followed = (each for event in a for each in (event, *added.get(event.key, ())))
    return [*added.get(None, ()), *followed]


def model_of(layer: str | None, pair: TracedPair) -> str | None:
    """The name of the model that a layer belongs to, if it has one."""
    roots = {e.layer for e in pair.a.events if e.kind == "inputs" and not e.parent}
    return next((r for r in sorted(roots) if layer and f"{layer}.".startswith(f"{r}.")), None)


# ---------------------------------------------------------------- different code paths


def _other_model(step: Step) -> Blame | None:
    """The cause if the models have different layers or weights."""
    of_start = (e for e in step.real if e.kind in ("weights", "buffers") and not e.call)
    lost = [e for e in of_start if None in step.shown(e)]
    if not lost:
        return None
    layers = tuple(step.changed_layers()) or (lost[0].layer,)
    why = step.attributes(layers[0]) or f"only one run has {lost[0]}"
    return Blame(
        "config", str(lost[0]), layers[0], f"the models differ: {why}", _unless_one(layers)
    )


def _fork(step: Step) -> Blame | None:
    """The cause if the runs take different paths before any value differs."""
    ways = [
        [e for e in s.events if e.kind in _FORKS and not (e.kind == "settings" and e.call)]
        for s in (step.a, step.b)
    ]
    at = next((i for i, (x, y) in enumerate(zip(*ways, strict=False)) if x.key != y.key), None)
    if at is None:
        return None
    one, other = ways[0][at], ways[1][at]
    places = {event.key: i for i, event in enumerate(step.events)}
    if step.real and places[step.real[0].key] < min(places[one.key], places[other.key]):
        return None
    alone = other if one.key in step.values[1] and other.key not in step.values[0] else one
    changed = step.changed_layers()
    why = [f"{layer}: {step.attributes(layer)}" for layer in changed]
    cause = "; ".join([f"one run goes on with {one}, the other with {other}", *why])
    running = [_running(each) for each in (alone, one, other) if _running(each)]
    called = [each.layer for each in (alone, one, other) if each.kind not in ("loss", "settings")]
    users = [*_users(step.a, one), *_users(step.b, other)]  # their callers may use the tensor
    suspects = tuple(dict.fromkeys((*changed, *running, *called, *_with_code(step, users))))
    if alone.kind == "settings":
        return Blame("optimizer", str(one), None, cause, suspects)
    is_backward = {one.kind, other.kind} & {"grad_out", "raw_grad"}
    gradients = [{e.kind for e in s.events} & {"grad_out", "raw_grad"} for s in (step.a, step.b)]
    if is_backward and not all(gradients):
        return Blame("backward", str(one), None, f"only one run has a backward pass; {cause}")
    stage: Stage = "backward" if is_backward else "forward"
    if not suspects:
        return Blame("loss", str(one), None, cause)
    return Blame(stage, str(one), suspects[0], cause, suspects)


def _users(step: TracedStep, event: Event) -> list[Event]:
    """The events of the gradient of the same tensor."""
    if event.kind not in ("grad_out", "grad_in"):
        return []
    return [each for each in step.events if each.kind == event.kind and each.tag == event.tag]


def _running(event: Event) -> str:
    """The module whose code led to the event: the caller, or the one whose forward ended."""
    return event.layer if event.kind == "outputs" else event.parent


# ---------------------------------------------------------------- rules, by the kind of event


def _explanation(step: Step) -> Blame:
    """The attributes, or else the random state, that differ though no result does."""
    layers = tuple(step.changed_layers())
    if layers:
        cause = step.attributes(layers[0])
        return Blame("forward", f"attributes of {layers[0]}", layers[0], cause, _unless_one(layers))
    side = [event for event in step.events if event.key in step.differ]
    random = next((event for event in side if event.kind == "random"), None)
    if random is not None:
        return _random(step, random, "random")
    if side:
        return Blame(_stage(step, side[0]), str(side[0]), None, f"{side[0]} differs")
    return _other_order(step)


def _other_order(step: Step) -> Blame:
    """The cause if both runs have the same values, in another order."""
    pairs = zip(step.a.events, step.b.events, strict=True)
    one, other = next(pair for pair in pairs if pair[0].key != pair[1].key)
    cause = f"one run goes on with {one}, the other with {other}; all values are equal"
    stage = "optimizer" if one.kind in _OF_OPTIMIZER else _stage(step, one)
    return Blame(stage, str(one), None, cause)


def _missing(step: Step, event: Event) -> Blame:
    """The cause if only one run has the event."""
    stage = _stage(step, event)
    cause = f"only one run has {event}"
    if stage not in ("forward", "backward"):
        alike = (e for e in step.real if e.kind == event.kind in _OF_WEIGHTS)
        lost = tuple(dict.fromkeys(e.layer for e in alike if None in step.shown(e)))
        if len(lost) > 1 and len(lost) >= 0.9 * len(step.layers_beside(event)):
            lost = ()
        return Blame(stage, str(event), next(iter(lost), None), cause, _unless_one(lost))
    around = (event.parent, event.layer) if event.parent else (event.layer,)
    layers = tuple(step.changed_layers()) or around
    why = step.attributes(layers[0])
    cause += f": {why}" if why else ""
    return Blame(stage, str(event), layers[0], cause, _unless_one(layers))


def _stage(step: Step, event: Event) -> Stage:
    """The stage of an event that only one run has."""
    raw = ("raw_grad", *event.key[1:3], 0)
    if event.kind == "grad" and all(raw in values for values in step.values):
        return "optimizer"  # both computed the gradient, one optimizer got it
    is_backward = "grad" in event.kind or event.kind.startswith("again_")
    return _STAGES.get(event.kind, "backward" if is_backward else "forward")


def _data(_: Step, event: Event) -> Blame:
    return Blame("data", str(event), None, f"{event.layer} differs")


def _outputs(step: Step, event: Event) -> Blame:
    stage: Stage = "backward" if event.kind.startswith("again_") else "forward"
    note = "when it runs again, " if stage == "backward" else ""
    layer, why = event.layer, step.attributes(event.layer)
    if why:
        return Blame(stage, str(event), layer, f"{note}{why}")
    if stage == "backward" and step.differs("again_random", layer, event.call):
        return _random(step, event, "again_random")
    if stage == "forward" and _drew_otherwise(step, event):
        return _random(step, event, "random")
    around = step.surroundings()
    if around:
        return Blame("config", str(event), layer, f"{around}; first seen in {layer}")
    if layer in step.parents:
        cause = "the code of its forward after its last part"
    else:
        cause = "outputs differ, its inputs are equal to the bit, and its weights, too"
    return Blame(stage, str(event), layer, note + cause)


def _drew_otherwise(step: Step, event: Event) -> bool:
    """Whether the last random state that was recorded before the event differs."""
    before = step.events[: step.events.index(event)]
    last = next((each for each in reversed(before) if each.kind == "random"), None)
    return last is not None and last.key in step.differ


def _random(step: Step, event: Event, kind: str) -> Blame:
    """The cause if a value differs, and the random state before it differs too."""
    if kind == "again_random":
        cause = "it runs again with another random state than at first"
        return Blame("backward", str(event), event.layer, cause)
    where = event.layer if event.kind == "outputs" else event.parent or None
    states = [e for e in step.events if e.kind == "random"]
    at = next(i for i, each in enumerate(states) if each.key in step.differ)
    since = step.pair.side.get(states[at].key, step.a.step)
    if since < step.a.step:
        cause = f"it differs, and so does the random state, but that since step {since}"
        suspects = tuple(dict.fromkeys((where or event.layer, event.layer, "the random state")))
        return Blame("forward", str(event), where, cause, suspects)
    if at == 0:
        cause = f"the random state differs from the start of step {since} on"
        return Blame("data", str(event), where, cause)
    drew, found = states[at - 1], states[at]
    if not found.parent:
        cause = f"random numbers were drawn before the call of {found.layer}"
        return Blame("data", str(event), where, cause)
    cause = f"random numbers were drawn between {drew.layer} and {found.layer}"
    suspects = tuple(dict.fromkeys((found.parent, drew.layer, found.layer)))
    return Blame("forward", str(event), found.parent, cause, suspects)


def _inputs(step: Step, event: Event) -> Blame:
    stage: Stage = "backward" if event.kind.startswith("again_") else "forward"
    if not event.parent:
        cause = f"what {event.layer} is called with differs"
        if any(each.kind == "data" for each in step.events):
            return Blame(stage, str(event), None, f"{cause}, the data do not")
        return Blame("data", str(event), None, cause)
    if stage == "forward" and _drew_otherwise(step, event):
        return _random(step, event, "random")
    before, why = _last_before(step, event), step.attributes(event.parent)
    cause = f"the code of {event.parent} between {before} and {event.layer}"
    cause += f"; {why}" if why else ""
    return Blame(stage, str(event), event.parent, cause, (event.parent, event.layer))


def _last_before(step: Step, event: Event) -> str:
    place = step.events.index(event)
    kinds = ("inputs", "outputs", "loss")
    return next(
        (str(each) for each in reversed(step.events[:place]) if each.kind in kinds),
        "the start of the step",
    )


def _loss(_: Step, event: Event) -> Blame:
    return Blame("loss", str(event), None, f"{event.layer} differs, all before it is equal")


def _gradient(step: Step, event: Event) -> Blame:
    """The cause if a tensor's gradient differs, from the layers that produced and used it."""
    group = [
        e
        for e in step.events
        if e.tag == event.tag and e.kind.removeprefix("again_") in ("grad_out", "grad_in")
    ]
    givers = [e for e in group if e.kind.endswith("grad_out")]
    takers = [e for e in group if e.kind.endswith("grad_in")]
    roots = {e.layer for e in step.events if e.kind == "inputs" and not e.parent}
    output = next((e for e in givers if e.layer in roots), None)
    if not takers and output is not None:
        cause = "the gradient at the model's output differs, its outputs do not"
        return Blame("loss", str(event), None, cause, _after_output(step, output))
    agree = [e for e in takers if not _has_other_gradient(step, e)]
    if agree:
        callers = {e.parent for e in agree}  # they gave the tensor to a part
        users = [e.layer for e in agree if e.layer not in callers]
        suspects = tuple(dict.fromkeys((*users, *_with_code(step, reversed(agree)))))
        cause = "the gradient of its outputs agrees, that of its inputs does not"
        return Blame("backward", str(event), suspects[0], cause, _unless_one(suspects))
    layer = givers[0].layer if givers else event.layer
    around = _with_code(step, givers) or (event.parent,)
    suspects = tuple(dict.fromkeys(each for each in (*around, layer) if each))
    cause = f"the backward of the code of {around[0] or layer} after {layer}"
    return Blame("backward", str(event), suspects[0], cause, suspects)


def _after_output(step: Step, output: Event) -> tuple[str, ...]:
    """The loss and the model, if that may have gone on with one of several outputs."""
    call = output.part.partition(".")[0]
    parts = {
        e.part for e in step.events if e.key[:2] == output.key[:2] and e.part.startswith(f"{call}.")
    }
    return ("the loss", output.layer) if len(parts) > 1 else ()


def _with_code(step: Step, events: Iterable[Event]) -> tuple[str, ...]:
    """The modules that called those of the events, and may have used the tensor themselves."""
    parents = dict.fromkeys(event.parent for event in events if event.parent)
    kinds = {each: step.a.attributes.get(each, {}).get("class") for each in parents}
    return tuple(each for each in parents if kinds[each] != "Sequential")


def _has_other_gradient(step: Step, event: Event) -> bool:
    """Whether the gradient of the outputs of the same call differs."""
    call, kind = event.part.partition(".")[0], event.kind.replace("grad_in", "grad_out")
    return any(
        e.key in step.differ
        for e in step.events
        if (e.kind, e.layer) == (kind, event.layer) and e.part.partition(".")[0] == call
    )


def _unless_one(suspects: tuple[str, ...]) -> tuple[str, ...]:
    return suspects if len(suspects) > 1 else ()


def _raw_grad(step: Step, event: Event) -> Blame:
    """The cause if the gradient of a weight differs, and nothing that it is computed from."""
    first = {e.layer: e.kind for e in reversed(step.real) if e.kind in ("grad_out", "raw_grad")}
    layers = [layer for layer in step.layers("raw_grad") if first[layer] == "raw_grad"]
    every = step.layers_beside(event)
    if len(layers) > 1 and len(layers) >= 0.9 * len(every):
        cause = "all gradients of weights, as they are accumulated: not zeroed, or zeroed too early"
        return Blame("backward", str(event), None, cause)
    why = step.attributes(event.layer)
    cause = why or "the gradient of its weights; its inputs and the gradient of its outputs agree"
    suspects = (event.layer, *(layer for layer in layers if layer != event.layer))
    if why or len(suspects) == 1:
        return Blame("backward", str(event), event.layer, cause)
    suspects = (*suspects, "gradients that were not zeroed")  # others may have had none before
    return Blame("backward", str(event), event.layer, cause, suspects)


def _grad(step: Step, event: Event) -> Blame:
    """The cause if a gradient was changed after the backward pass."""
    layers = step.layers("grad")
    every = step.layers_beside(event)
    odd, ratio = _odd_norms(step)
    if len(layers) > 1 and odd:
        cause = f"gradients are scaled by {ratio:.9g}, but not this one: changed before clipping"
        return Blame("backward", str(event), odd[0], cause, _unless_one(tuple(odd)))
    if len(layers) > 1 and len(layers) >= 0.9 * len(every):
        cause = "all gradients, after the backward pass: clipping, accumulation, all-reduce"
        return Blame("backward", str(event), None, cause)
    cause = "its gradient was changed after the backward pass"
    return Blame("backward", str(event), layers[0], cause, _unless_one(tuple(layers)))


def _odd_norms(step: Step) -> tuple[list[str], float]:
    """The layers whose gradients are scaled differently from most, and the factor of most."""
    ratios: dict[Key, float] = {}
    for event in step.events:
        if event.kind == "grad_norm":
            a, b = step.shown(event)
            if isinstance(a, float) and isinstance(b, float) and a:
                ratios[event.key] = b / a
    middle = median(ratios.values()) if ratios else 1.0
    odd = [key for key, ratio in ratios.items() if abs(ratio - middle) > _ODD * abs(middle)]
    few = odd if len(odd) <= 0.3 * len(ratios) else []
    return list(dict.fromkeys(key[1] for key in few)), middle


def _settings(step: Step, event: Event) -> Blame:
    a, b = step.shown(event)
    name = event.part.partition(".")[2]
    return Blame("optimizer", str(event), None, f"{name} {' -> '.join(shown_apart(a, b))}")


def _state(step: Step, event: Event) -> Blame:
    layers, every = step.layers("state"), step.layers_beside(event)
    only = layers[0] if len(layers) == 1 < len(every) else None  # LBFGS has one state for all
    lost = [s for s, side in (("first", 0), ("second", 1)) if event.key not in step.values[side]]
    said = f"is not there in the {lost[0]} run" if lost else "differs"
    cause = f"the optimizer's state {said}, gradients agree"
    return Blame("optimizer", str(event), only, cause)


def _new_weights(step: Step, event: Event) -> Blame:
    layers = step.layers("new_weights")
    only = layers[0] if len(layers) == 1 else None
    before = step.events[: step.events.index(event)]
    if not any(e.key[:3] == ("grad", event.layer, event.part) for e in before):
        cause = "weights differ within its step; the gradients of the pass before were not recorded"
        return Blame("optimizer", str(event), only, cause, ("the gradients", "the optimizer"))
    cause = "weights differ after the step; gradients, settings and state agree"
    return Blame("optimizer", str(event), only, cause)


def _weights(step: Step, event: Event) -> Blame:
    kinds = [kind for kind in ("weights", "buffers") if step.layers(kind)]
    layers = tuple(dict.fromkeys(layer for kind in kinds for layer in step.layers(kind)))
    why = step.attributes(event.layer)
    is_first = step.pair.previous is None
    when = "from the first step on" if is_first else "they were changed between steps"
    when = "they were changed within the step" if event.call else when
    cause = (
        f"{' and '.join(kinds)} differ before the forward pass: {when}{'; ' if why else ''}{why}"
    )
    return Blame("weights", str(event), layers[0], cause, _unless_one(layers))


def _new_buffers(step: Step, event: Event) -> Blame:
    layers = tuple(step.layers("new_buffers"))
    cause = step.attributes(event.layer) or "its buffers differ after the step, its outputs do not"
    return Blame("weights", str(event), layers[0], cause, _unless_one(layers))


def _value(_: Step, event: Event) -> Blame:
    return Blame("metric", str(event), None, f"{event.layer} differs")


def _in_between(step: Step, event: Event) -> Blame:
    """The cause if weights differ after untraced steps: only lasting changes can still be seen."""
    changed = tuple(step.changed_layers())
    if changed:
        cause = f"{step.attributes(changed[0])}; {_GAP}"
        return Blame("forward", str(event), changed[0], cause, _unless_one(changed))
    for kind, rule in (("settings", _settings), ("data", _data)):
        found = next((each for each in step.real if each.kind == kind), None)
        if found is not None:
            return rule(step, found)
    return Blame("weights", str(event), None, f"weights were changed {_GAP}")


def _rules() -> dict[str, Callable[[Step, Event], Blame]]:
    plain: Iterable[tuple[str, Callable[[Step, Event], Blame]]] = (
        *(("data", _data), ("weights", _weights), ("buffers", _weights), ("inputs", _inputs)),
        *(("outputs", _outputs), ("loss", _loss), ("grad_out", _gradient), ("grad_in", _gradient)),
        *(("raw_grad", _raw_grad), ("grad", _grad), ("settings", _settings), ("state", _state)),
        *(("new_weights", _new_weights), ("new_buffers", _new_buffers), ("value", _value)),
    )
    again = ((f"again_{kind}", rule) for kind, rule in plain if kind in _AGAIN)
    return dict((*plain, *again))


_AGAIN = ("inputs", "outputs", "grad_out", "grad_in")
_RULES = _rules()
