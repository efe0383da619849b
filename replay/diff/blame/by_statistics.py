"""Find the cause of a difference from the statistics of layers that `watch` records.

The cause is the layer whose inputs agree and whose outputs differ; in the backward pass, the layer
whose gradient of the outputs agrees and whose gradient of the inputs differs. If too little was
recorded to decide, all candidates are listed as "one of".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flexrec.recorder.errors import counted, listed
from flexrec.recorder.files.names import is_fingerprint
from flexrec.replay.diff.blame.places import (
    BACKWARD,
    FORWARD,
    Place,
    around,
    callers,
    in_time,
    is_watched,
    layers_of,
    place_of,
    stage_rank,
)
from flexrec.replay.diff.columns import KeyDiff
from flexrec.replay.diff.model import Blame, Stage, shown_apart

_OF_OPTIMIZER = ("state", "updates", "weights")  # what changes in its step, in this order
_MOST = 0.9  # fraction of the layers that is reported as all of them
_PARALLEL = "a layer in parallel"


class StepOfLayers:
    """The differences at one step, by layer and source.

    Args:
        step: the first step that differs.
        found: the comparisons of all keys.
        fields: the fields of the watched layers by name, as in `Recording.models`.

    Attributes:
        prior: the last earlier step for which both runs have values.
        layers: the layers in the order in which they first ran.
        passes: the inputs and outputs of the layers in the order of time, as `in_time` gives them.
    """

    def __init__(
        self, step: int, found: Mapping[str, KeyDiff], fields: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.step, self.found, self._fields = step, found, fields
        self.layers = layers_of(found)
        before = [key.previous(step) for key in found.values()]
        self.prior = max((each for each in before if each is not None), default=None)
        self.places: dict[str, Place] = {key: place_of(key) for key in found}
        self.passes = in_time(self.layers, fields)
        self._keys: dict[tuple[str, str], list[KeyDiff]] = {}
        for key, place in self.places.items():
            if place.layer:
                self._keys.setdefault((place.layer, place.source), []).append(found[key])

    def differ(self, stage: Stage) -> list[str]:
        """The keys of a stage that belong to no layer and differ here."""
        return [
            key
            for key, place in self.places.items()
            if place.stage == stage and not place.layer and self.found[key].first == self.step
        ]

    def has(self, key: str) -> bool:
        """Whether both runs have a value of a key here that was compared."""
        return self.found[key].has(self.step) and not self.found[key].is_unlike

    def differs(self, layer: str, source: str) -> bool | None:
        """Whether any key of the layer's source differs here; None if none was recorded."""
        keys = self._keys.get((layer, source), ())
        if any(key.first == self.step for key in keys):
            return True
        return False if any(key.has(self.step) for key in keys) else None

    def is_lost(self, layer: str, source: str) -> bool:
        """Whether only one run has the source here."""
        keys = [key for key in self._keys.get((layer, source), ()) if key.first == self.step]
        return bool(keys) and all((key.a is None) != (key.b is None) for key in keys)

    def how_far(self, layer: str, source: str) -> str:
        """How far a source is known to be equal if no key of it differs."""
        keys = self._keys.get((layer, source), ())
        has_bits = any(is_fingerprint(key.key) and not key.is_unlike for key in keys)
        return "to the bit" if has_bits else "as far as recorded"

    def key(self, layer: str, source: str) -> str:
        """The first of a layer's keys that differs here."""
        keys = self._keys[layer, source]
        return next(key.key for key in keys if key.first == self.step)

    def unknown(self, layer: str) -> str | None:
        """What else the outputs of a layer depend on, unless it is known to be equal."""
        fields = self._fields.get(layer, {})
        if "Drop" in fields.get("class", ""):
            return f"the random state before {layer}"
        if fields.get("parameters") != 0 and self._may_be_stepped_between(layer):
            return "an earlier pass of the step"
        if fields.get("parameters") == 0 or self._had_equal_weights(layer):
            return None
        return f"the weights of {layer} before the step"

    def model(self, layer: str) -> object:
        """What tells the layers of one model from those of others."""
        return self._fields.get(layer, {}).get("model")

    def calls(self, layer: str) -> int:
        """How often it was called at the first armed step."""
        calls = self._fields.get(layer, {}).get("calls")
        return calls if isinstance(calls, int) else 1

    def models(self) -> "list[StepOfLayers]":
        """The same step for each model alone; the order between models is not recorded."""
        names = dict.fromkeys(map(self.model, self.layers))
        if len(names) < 2:
            return [self]
        owners = {key: place.layer for key, place in self.places.items()}
        return [
            StepOfLayers(
                self.step,
                {k: each for k, each in self.found.items() if self._is_of(owners[k], name)},
                self._fields,
            )
            for name in names
        ]

    def _is_of(self, layer: str, model: object) -> bool:
        return not layer or self.model(layer) == model

    def _beside(self, layer: str) -> list[str]:
        """The layers of the same model."""
        return [each for each in self.layers if self.model(each) == self.model(layer)]

    def _may_be_stepped_between(self, layer: str) -> bool:
        """Whether the step may have several passes, between which an optimizer changes weights."""
        return all(self.calls(each) > 1 for each in self._beside(layer))

    def repeated(self, layer: str, *, in_all: bool = False) -> list[str]:
        """The layers that a loop calls again before this one, if it is in a loop.

        Args:
            layer: the layer.
            in_all: whether the loop may be around all layers of the model.
        """
        calls = {each: self.calls(each) for each in self._beside(layer)}
        if self.calls(layer) == 1 or not (in_all or min(calls.values()) < self.calls(layer)):
            return []
        return [each for each, count in calls.items() if count > 1]

    def may_be_frozen(self, layer: str) -> bool:
        """Whether its weights may have no gradient in one of the runs."""
        has_weights = self._fields.get(layer, {}).get("parameters") != 0
        return has_weights and self.differs(layer, "grad_weights") is not False

    def has_parts(self, layer: str) -> bool:
        """Whether other layers run between its inputs and outputs."""
        return self.passes.index((layer, "outputs")) - self.passes.index((layer, "inputs")) > 1

    def before(self, layer: str, source: str) -> list[str]:
        """The layers that ended before a layer's inputs or outputs, in this order."""
        place = self.passes.index((layer, source))
        return [each for each, kind in self.passes[:place] if kind == "outputs"]

    def _had_equal_weights(self, layer: str) -> bool:
        """Whether its weights are known to be equal at the end of the step before."""
        keys = self._keys.get((layer, "weights"), ())
        return self.prior is not None and any(k.previous(self.step) == self.prior for k in keys)

    def differing(self, source: str) -> list[str]:
        """The layers whose source differs."""
        return [layer for layer in self.layers if self.differs(layer, source)]

    def knows_layers(self) -> bool:
        """Whether any key of a layer was recorded here."""
        return any(key.has(self.step) for keys in self._keys.values() for key in keys)

    def known(self, source: str) -> list[str]:
        """The layers whose source was recorded here."""
        return [layer for layer in self.layers if self.differs(layer, source) is not None]


def blame(
    step: int, found: Mapping[str, KeyDiff], fields: Mapping[str, Mapping[str, Any]]
) -> Blame:
    """Find what differs first at a step that differs, and its cause; see StepOfLayers."""
    here = StepOfLayers(step, found, fields)
    rules: tuple[Callable[[StepOfLayers], Blame | None], ...] = (
        *(_in_data, _in_forward, _in_loss, _in_backward, _in_gradients, _in_optimizer),
        _in_weights,
    )
    for rule in rules:
        blamed = rule(here)
        if blamed is not None:
            return blamed
    (key, *_) = sorted(
        (key for key in found if found[key].first == step),
        key=lambda key: stage_rank(here.places[key].stage),
    )
    return Blame(here.places[key].stage, key, here.places[key].layer or None, f"{key} differs")


def _in_data(here: StepOfLayers) -> Blame | None:
    keys = here.differ("data")
    return Blame("data", keys[0], None, _several(keys)) if keys else None


def _in_forward(here: StepOfLayers) -> Blame | None:
    models = here.models()
    found = [each for each in map(_in_passes, models) if each is not None]
    inside = [each for each in found if each.layer]
    if inside or not found or len(models) == 1:
        return _any_of(inside or found)
    last, code = _after_the_layers(here)  # what goes into a model may come out of another
    data = ("the data",) if found[0].stage == "data" else ()
    among = tuple(dict.fromkeys((*data, *found[0].one_of, *last, *code)))
    return replace(found[0], one_of=among if last else found[0].one_of)


def _any_of(found: Sequence[Blame]) -> Blame | None:
    """The first of what is blamed in several models, with the candidates of all."""
    if len(found) < 2:
        return next(iter(found), None)
    among = dict.fromkeys(each for of in found for each in (of.one_of or (of.layer,)) if each)
    cause = f"{found[0].cause}; other models differ, too"
    return replace(found[0], cause=cause, one_of=tuple(among))


def _in_passes(here: StepOfLayers) -> Blame | None:
    for layer, source in here.passes:
        if here.is_lost(layer, source):
            return _not_called(here, layer, source)
        if here.differs(layer, source):
            return (_before if source == "inputs" else _outputs)(here, layer)
    return None


def _outputs(here: StepOfLayers, layer: str) -> Blame:
    """The cause if a layer's outputs differ, and nothing that was recorded before them."""
    key, earlier = here.key(layer, "outputs"), here.before(layer, "outputs")
    if here.differs(layer, "inputs") is None:
        cause = "outputs differ; its inputs were not recorded"
        above = _after_the_last_equal(here, earlier)
        suspects = (*above, layer, *_code_before(here, layer, above))
        suspects += _in_parallel(here, earlier, above)
        return Blame("forward", key, layer, cause, suspects)
    cause = f"outputs differ, its inputs are equal {here.how_far(layer, 'inputs')}"
    parts = [each for each in earlier if each not in here.before(layer, "inputs")]
    unknown = here.unknown(layer)
    if unknown is not None:
        cause += f"; {unknown} may differ: not recorded"
    suspects = (*_after_the_last_equal(here, parts), layer, *filter(None, [unknown]))
    return Blame("forward", key, layer, cause, suspects if len(suspects) > 1 else ())


def _not_called(here: StepOfLayers, layer: str, source: str) -> Blame:
    """The cause if only one run has a layer's inputs or outputs, and all before is equal."""
    key = here.key(layer, source)
    if all(here.is_lost(each, source) for each in here.known(source)):
        cause = "only one run has its layers: the other did not train there, or without gradients"
        return Blame("forward", key, None, cause)
    earlier = here.before(layer, "inputs")
    above = _after_the_last_equal(here, earlier)
    suspects = (*above, *_code_before(here, layer, above), layer)
    suspects += _in_parallel(here, earlier, above)
    return Blame("forward", key, suspects[0], f"only one run has {source} of {layer}", suspects)


def _before(here: StepOfLayers, layer: str) -> Blame:
    """The cause if a layer's inputs differ, and nothing that was recorded before it."""
    key, earlier = here.key(layer, "inputs"), here.before(layer, "inputs")
    suspects = _after_the_last_equal(here, earlier)
    code = (*_code_before(here, layer, suspects), *here.repeated(layer))
    beside = _in_parallel(here, earlier, suspects)
    unknown = filter(None, map(here.unknown, suspects))
    entered = here.layers[: here.layers.index(layer)]
    if not any(here.differs(other, source) is False for other in entered for source in FORWARD):
        cause = f"what goes into {layer}{', the first layer,' if not suspects else ''} differs"
        among = (*suspects, *unknown, *code) if suspects else ()
        if any(here.places[each].stage == "data" and here.has(each) for each in here.found):
            again = here.repeated(layer, in_all=True)
            among = tuple(dict.fromkeys((*among, *again, *code))) if again else among
            return Blame("forward", key, None, f"{cause}, the data do not", among)
        return Blame("data", key, None, cause, ("the data", *among) if among else ())
    if suspects:
        cause = f"its inputs are equal, those of {layer}, which comes next, differ"
        among = tuple(dict.fromkeys((*suspects, *unknown, *code, *beside)))
        return Blame("forward", key, suspects[-1], cause, among)
    cause = f"the code of {code[0]} before {layer}: all that was recorded before it is equal"
    return Blame("forward", key, code[0], cause, tuple(dict.fromkeys((*code, layer, *beside))))


def _code_before(here: StepOfLayers, layer: str, above: Sequence[str] = ()) -> tuple[str, ...]:
    """The modules whose code may run between a layer and what is known to be equal before it.

    Args:
        here: the step.
        layer: the layer.
        above: the layers directly before it that may be the cause.
    """
    if above and here.differs(above[0], "inputs") is False:
        return around(above[0], layer)
    before = here.layers[: here.layers.index(above[0] if above else layer)]
    return around(*before[-1:], layer)


def _after_the_last_equal(here: StepOfLayers, earlier: Sequence[str]) -> tuple[str, ...]:
    """The layers directly before, without those whose outputs are known to be equal."""
    suspects = list[str]()
    for layer in reversed(earlier):
        if here.differs(layer, "outputs") is False:
            break
        suspects.insert(0, layer)
        if here.differs(layer, "inputs") is False and not here.has_parts(layer):
            break
    return tuple(suspects)


def _in_parallel(
    here: StepOfLayers, earlier: Iterable[str], suspects: Sequence[str]
) -> tuple[str, ...]:
    """The candidate that stands for the layers before the suspects whose outputs were not recorded:
    they need not have gone into the suspects."""
    others = (each for each in earlier if each not in suspects)
    return (_PARALLEL,) if any(here.differs(e, "outputs") is None for e in others) else ()


def _in_loss(here: StepOfLayers) -> Blame | None:
    keys = here.differ("loss")
    if not keys:
        return None
    if here.layers and not here.knows_layers():
        cause = f"{keys[0]} differs; no layer was recorded at this step by both"
        return Blame("loss", keys[0], None, cause, ("the loss", "any layer", "an earlier step"))
    return _of_loss(here, keys[0], f"{keys[0]} differs")


def _of_loss(here: StepOfLayers, key: str, what: str) -> Blame:
    """The cause if a loss or its gradient differs, and nothing that was recorded before it."""
    last, code = _after_the_layers(here)
    suspects = ("the loss", *last, *code, *_in_parallel(here, here.layers, last))
    if last:
        cause = f"{what}; the outputs of {listed(last)} were not recorded"
        return Blame("loss", key, None, cause, suspects)
    cause = f"{what}, all before it is equal"
    return Blame("loss", key, None, cause, suspects if code else ())


def _after_the_layers(here: StepOfLayers) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The last layers of each model unless their outputs are known to be equal, and the modules
    whose code may run after them."""
    ended: dict[object, list[str]] = {}
    for layer, source in here.passes:
        if source == "outputs":
            ended.setdefault(here.model(layer), []).append(layer)
    last = [_after_the_last_equal(here, layers) for layers in ended.values()]
    ends = [layers[-1] for layers in ended.values()]
    code = dict.fromkeys(each for end in ends if not here.has_parts(end) for each in callers(end))
    return tuple(each for layers in last for each in layers), tuple(code)


def _in_backward(here: StepOfLayers) -> Blame | None:
    found = [each for each in map(_back_through, here.models()) if each is not None]
    return _any_of([each for each in found if each.stage == "backward"]) or next(iter(found), None)


def _back_through(here: StepOfLayers) -> Blame | None:
    ended = [layer for layer, source in here.passes if source == "outputs"]
    last = next(
        (each for each in reversed(ended) if here.differs(each, "grad_out") is not None), None
    )
    after = None
    for layer, source in reversed(here.passes):
        gradient = "grad_out" if source == "outputs" else "grad_in"
        differs = here.differs(layer, gradient)
        if differs and gradient == "grad_in":
            return _grad_in(here, layer)
        if differs and layer == last:
            key = here.key(layer, "grad_out")
            if here.is_lost(layer, "grad_out"):
                return Blame("backward", key, None, "only one run has the gradient of its outputs")
            return _of_loss(here, key, "the gradient at the model's output differs")
        if differs:
            near = (after,) if after and here.differs(after, "grad_in") is None else ()
            suspects = (*near, *around(layer, *filter(None, [after])), "the loss")
            cause = f"the backward of what comes after {layer}"
            if here.is_lost(layer, "grad_out"):
                cause += ", or what is before is frozen"
                suspects = (*suspects, *_frozen(here, layer))
            return Blame("backward", here.key(layer, "grad_out"), suspects[0], cause, suspects)
        if differs is False:
            after = layer
    return None


def _frozen(here: StepOfLayers, layer: str) -> list[str]:
    """The layers up to a layer, and of its model, that may be frozen in one of the runs."""
    above = here.layers[: here.layers.index(layer) + 1]
    return [e for e in above if here.model(e) == here.model(layer) and here.may_be_frozen(e)]


def _grad_in(here: StepOfLayers, layer: str) -> Blame:
    """The cause if the gradient of a layer's inputs differs, and that of its outputs does not."""
    suspects = (layer, *_code_before(here, layer), _PARALLEL)
    is_lost = here.is_lost(layer, "grad_in")
    before = here.layers[: here.layers.index(layer)]
    are_lost = any(here.is_lost(e, kind) for e in before for kind in (*BACKWARD, "grad_weights"))
    if is_lost or are_lost or here.calls(layer) > 1:
        part = "of some of its calls or inputs only one run may have"
        cause = "only one run has" if is_lost else part
        cause += " the gradient of its inputs: detached, or what is before is frozen"
        suspects = (*suspects, *(each for each in _frozen(here, layer) if each != layer))
    else:
        cause = "the gradient of its outputs agrees, that of its inputs does not"
        cause += "; other code may use these inputs, too"
    return Blame("backward", here.key(layer, "grad_in"), layer, cause, suspects)


def _in_gradients(here: StepOfLayers) -> Blame | None:
    layers = here.differing("grad_weights")
    if not layers:
        return None
    lost = [layer for layer in layers if here.is_lost(layer, "grad_weights")]
    layers = lost or layers  # clipping then changes the others
    key = here.key(layers[0], "grad_weights")
    rates = [each for each in here.differ("optimizer") if is_watched(each)]
    if any(None in (here.found[each].a, here.found[each].b) for each in rates):
        return Blame("optimizer", key, None, "only one run's optimizer took a step")
    if len(layers) > 1 and len(layers) >= _MOST * len(here.known("grad_weights")):
        cause = "all gradients differ after an equal backward pass: clipping, accumulation, scaling"
        cause += "; or one was changed before clipping"
        return Blame("backward", key, None, cause)
    cause = "the gradient of its weights differs, all before it is equal"
    if any(here.differs(layer, "grad_out") is None for layer in layers):
        cause += "; gradients of outputs were not recorded"
        return Blame("backward", key, layers[-1], cause, (*layers, "the gradients of outputs"))
    return Blame("backward", key, layers[-1], cause, tuple(layers) if len(layers) > 1 else ())


def _in_optimizer(here: StepOfLayers) -> Blame | None:
    keys = here.differ("optimizer")
    if keys:
        of = here.found[keys[0]]
        cause = f"{keys[0]} {' -> '.join(shown_apart(of.a, of.b, digits=6))}"
        return Blame("optimizer", keys[0], None, cause)
    gradients = here.known("grad_weights")
    changed = [(s, layer) for s in _OF_OPTIMIZER for layer in here.differing(s)]
    if not changed or (not gradients and changed[0][0] == "weights"):
        return None
    layers = list(dict.fromkeys(layer for _, layer in changed))
    key = here.key(changed[0][1], changed[0][0])
    said = _changed_by_optimizer(here, changed[0][0], bool(gradients))
    only, its = (layers[0], "its ") if len(layers) == 1 else (None, "")
    if changed[0][0] == "weights" and here.known("updates"):
        cause = f"{its}weights differ, though updates agree: changed after the optimizer's step"
        return Blame("weights", key, only, cause, () if only else tuple(layers))
    if gradients:
        return Blame("optimizer", key, only, f"{its}{said}")
    cause = f"{its}{said}; gradients of weights were not recorded"
    gradient = f"the gradients of {only}" if only else "the gradients"
    return Blame("optimizer", key, only, cause, (gradient, "the optimizer"))


def _changed_by_optimizer(here: StepOfLayers, source: str, knows_gradients: bool) -> str:
    """What is wrong, if this source of the optimizer's step is the first that differs."""
    though = ", though gradients agree" if knows_gradients else ""
    if source == "state":
        return f"state of the optimizer differs{though}"
    if though and here.known("state"):
        though = ", though gradients and the optimizer's state agree"
    what = "weights differ" if though else "updates of weights differ"
    return f"{what}{though}"


def _in_weights(here: StepOfLayers) -> Blame | None:
    layers = here.differing("weights")
    if not layers:
        return None
    cause = "weights differ after the step, all that was recorded before is equal"
    key, only = here.key(layers[0], "weights"), layers[0] if len(layers) == 1 else None
    unknown = () if here.known("grad_weights") else ("the gradients",)
    return Blame("weights", key, only, cause, (*layers, *unknown, "the optimizer"))


def _several(keys: Iterable[str]) -> str:
    names = list(keys)
    if len(names) == 1:
        return f"{names[0]} differs"
    return f"{names[0]} and {counted(len(names) - 1, 'other key')} differ"
