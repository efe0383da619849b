"""One measured ("armed") step of a TooledModel: measures calls, and parameters at its end.

Only tooled_model.py uses it. Outputs and gradients are not changed.
"""

import threading
import weakref
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import unserializable_hook

from flexrec.recorder.layers.calls import EagerWhileObserved
from flexrec.recorder.layers.failures import Failures
from flexrec.recorder.layers.loss_scale import LossScale
from flexrec.recorder.layers.measuring.measures import ALIVE, Measure, Partial, local, prepare
from flexrec.recorder.layers.measuring.units import DROPPED, mark, marked, units_of
from flexrec.recorder.layers.torch_private import (
    add_gradient_hook,
    dispatch_modes_are_active,
    hidden_from_modes,
    in_backward,
    in_transform,
)

Partials: TypeAlias = dict[Measure, Partial]
_Key: TypeAlias = tuple[str, str]  # layer, source
_OF_PARAMETERS = frozenset({"weights", "grad_weights", "updates"})


@dataclass
class Calls:
    """The number of a layer's calls in a step, and the shape of its first output."""

    number: int = 0
    shape: list[int] | None = None

    def note(self, output: Any) -> None:
        """Note the shape of the first tensor of an output, if it is the first output."""
        if self.shape is None:
            self.shape = next((list(tensor.shape) for tensor in _tensors(output)), None)


class ArmedStep:
    """Collects the measures of one step, from its first training pass to `close`.

    Args:
        layers: modules by layer name.
        measures: the measures to take, by source.
        roots: the ids of the whole model, of its wrappers and of the module inside them.
        trains: whether a call of a module made now belongs to a training pass.
        scale: the loss scale in the gradients.
        failures: collects what could not be measured.

    Attributes:
        calls: the calls of each layer in training passes, in the order of the first ones.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        measures: Mapping[str, tuple[Measure, ...]],
        roots: Container[int],
        trains: Callable[[nn.Module], bool],
        scale: LossScale | None,
        failures: Failures,
    ) -> None:
        self._layers, self._measures, self._failures = layers, measures, failures
        self._names = {id(module): name for name, module in layers.items()}
        self._roots, self._trains, self._scale = roots, trains, scale
        self._takes_inputs = not measures.keys().isdisjoint(("inputs", "grad_in"))
        self._takes_outputs = not measures.keys().isdisjoint(("outputs", "grad_out"))
        self._counts_units = ALIVE in measures.get("outputs", ())
        self._collected: dict[_Key, Partials] = {}
        self._seen: dict[int, _Seen] = {}
        self._threads = _Passes()
        self._closed = False
        self.calls: dict[str, Calls] = {}
        self._before = self._weights_now() if "updates" in measures else {}
        self._itself = weakref.ref(self)
        self._on_leaves: list[Callable[[], Any]] = []
        self._eager = EagerWhileObserved()
        weakref.finalize(self, _take_off, self._on_leaves, self._eager)  # without `close`

    def _weights_now(self) -> dict[str, dict[str, Tensor]]:
        weights: dict[str, dict[str, Tensor]] = {}
        for layer, module in self._layers.items():
            copies = weights[layer] = {}
            for name, parameter in weights_of(module).items():
                with self._failures.leaving_out(layer, "updates"):
                    copies[name] = local(parameter.detach()).clone()
        return weights

    # ------------------------------------------------------------------ the calls

    @property
    def depth(self) -> int:
        """The number of running calls in this thread."""
        return len(self._passes)

    @property
    def _passes(self) -> list[bool]:
        """For each running call of this thread: whether it is of a training pass."""
        return self._threads.under_way

    def enter(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Handle the start of a call, which may begin a pass, also within another pass."""
        goes_on = bool(self._passes) and id(module) not in self._roots
        self._passes.append(self._passes[-1] if goes_on else self._trains(module))
        layer = self._names.get(id(module))
        if layer is not None and self._counts_now():
            self.calls.setdefault(layer, Calls()).number += 1
        if self._takes_inputs and id(module) in self._names:
            values = args[0] if len(args) == 1 and not kwargs else (args, _without_masks(kwargs))
            self._take(module, values, "inputs", "grad_in")

    def result(self, module: nn.Module, args: Any, output: Any) -> None:
        """Handle the output of a call."""
        layer = self._names.get(id(module))
        if layer in self.calls and self._counts_now():
            with self._failures.leaving_out(layer, "outputs"):
                self.calls[layer].note(output)
        if self._takes_outputs and id(module) in self._names:
            self._take(module, output, "outputs", "grad_out", args if self._counts_units else None)

    def _counts_now(self) -> bool:
        """Whether this call is in a training pass, and not a repetition during backward."""
        return bool(self._passes) and self._passes[-1] and not in_backward()

    def leave(self, depth: int) -> None:
        """Handle the end of a call, also by an exception; `depth` calls are still running."""
        del self._passes[depth:]

    def close(self) -> None:
        """Remove all hooks; the hooks in a graph that still exists do nothing from now on."""
        self._closed = True
        _take_off(self._on_leaves, self._eager)
        self._seen.clear()

    # ------------------------------------------------------------------ inputs and outputs

    def _take(
        self, module: nn.Module, values: Any, source: str, gradient: str, args: Any = None
    ) -> None:
        # A checkpointed part runs again during backward: its values were measured the first
        # time; its gradients, where the first run had none, flow through the second.
        again = in_backward()
        if not (again or (self._passes and self._passes[-1])) or self._closed or in_transform():
            return
        measures = source in self._measures and not again
        hooks = gradient in self._measures and torch.is_grad_enabled()
        layer = self._names[id(module)]
        tensors: Iterable[Tensor] = ()
        with self._failures.leaving_out(layer, source):
            tensors = _tensors(values)
        for tensor in tensors:
            with self._failures.leaving_out(layer, source):
                seen = self._see(tensor)
                if args is not None:
                    seen.units = units_of(module, args, tensor, self._known_units)
                    mark(tensor, seen.units)
                if measures:
                    self._add(self._collected, (layer, source), tensor, seen.partials, seen.units)
            if hooks and tensor.requires_grad:
                with self._failures.leaving_out(layer, gradient):
                    self._watch_gradient(tensor, seen.wanted, (layer, gradient))

    def _see(self, tensor: Tensor) -> "_Seen":
        """The entry for this tensor and content; one layer's output is another's input."""
        version = -1 if tensor.is_inference() else tensor._version
        seen = self._seen.get(id(tensor))
        if seen is None or seen.version != version or seen.tensor() is not tensor:
            seen = self._seen[id(tensor)] = _Seen(tensor, version)
        return seen

    def _known_units(self, tensor: Tensor) -> int | None:
        """The units' dimension found before for this tensor, or for one it was computed from."""
        seen = self._seen.get(id(tensor))
        if seen is not None and seen.units is not None and seen.tensor() is tensor:
            return seen.units
        return marked(tensor)

    def _watch_gradient(self, tensor: Tensor, wanted: list[_Key], key: _Key) -> None:
        if key in wanted:
            return
        wanted.append(key)
        if len(wanted) > 1:
            return

        itself = self._itself  # a weak reference, so that a graph does not keep the step alive

        @unserializable_hook  # type: ignore[untyped-decorator]
        def take(gradient: Tensor | None) -> None:
            step = itself()
            if gradient is not None and step is not None:
                step._take_gradient(gradient, wanted)

        take_off = add_gradient_hook(tensor, take)
        if tensor.is_leaf:  # outlives the step
            self._on_leaves.append(take_off)

    def _take_gradient(self, gradient: Tensor, wanted: Iterable[_Key]) -> None:
        if self._closed or in_transform():
            return
        known: Partials = {}
        for key in wanted:
            with self._failures.leaving_out(*key):
                if self._scale is not None:
                    self._scale.refresh()
                self._add(self._collected, key, gradient, known, scale=self._scale)

    def _add(
        self,
        collected: dict[_Key, Partials],
        key: _Key,
        tensor: Tensor,
        known: Partials,
        units: int | None = None,
        *,
        scale: LossScale | None = None,
    ) -> None:
        """Pool a tensor's measures into those of a key; `known` has the tensor's earlier measures.

        Entries of `collected` are replaced, never changed, since several keys may share them.
        """
        measures = self._measures[key[1]]
        missing = [measure for measure in measures if measure not in known]
        if missing:
            with hidden_from_modes() if dispatch_modes_are_active() else _NOTHING:
                self._measure(tensor, missing, known, key, units, scale)
        pooled = collected.get(key)
        if pooled is None:
            if known:
                collected[key] = known
        elif known:
            collected[key] = {m: _pooled(m, pooled, known) for m in {**pooled, **known}}

    def _measure(
        self,
        tensor: Tensor,
        measures: Iterable[Measure],
        known: Partials,
        key: _Key,
        units: int | None,
        scale: LossScale | None,
    ) -> None:
        """Add the results of the measures of a tensor, except those that fail."""
        prepared = prepare(tensor)
        if prepared is None:
            return
        if scale is not None:
            prepared = scale.undo(prepared)
        for measure in measures:
            with self._failures.leaving_out(*key):
                if measure is not ALIVE:
                    known[measure] = measure.of(prepared)
                elif units is not None and units != DROPPED:
                    known[measure] = measure.of(prepared.movedim(units, -1))

    # ------------------------------------------------------------------ results

    def partials(self) -> dict[_Key, Partials]:
        """The measures collected so far; parameters are measured now."""
        collected = dict(self._collected)
        shared: dict[tuple[str, int], Partials] = {}  # tied parameters are measured once
        for source in _OF_PARAMETERS & self._measures.keys():
            for layer, module in self._layers.items():
                weights = weights_of(module)
                for name, tensor in self._parameters(layer, weights, source).items():
                    known = shared.setdefault((source, id(weights[name])), {})
                    with self._failures.leaving_out(layer, source):
                        self._add(collected, (layer, source), tensor, known)
        return collected

    def gradients(self, layer: str) -> dict[str, Tensor]:
        """The gradients of a layer's weights by name, without the scaler's scale."""
        return self._parameters(layer, weights_of(self._layers[layer]), "grad_weights")

    def _parameters(
        self, layer: str, weights: dict[str, nn.Parameter], source: str
    ) -> dict[str, Tensor]:
        """The tensor of a source for each weight of a layer, this process's part only."""
        found: dict[str, Tensor] = {}
        for name, parameter in weights.items():
            with self._failures.leaving_out(layer, source):
                value = self._parameter(layer, name, parameter, source)
                if value is not None:
                    found[name] = value
        return found

    def _parameter(
        self, layer: str, name: str, parameter: nn.Parameter, source: str
    ) -> Tensor | None:
        if source == "grad_weights":
            if parameter.grad is None or self._scale is None or self._scale.is_undone():
                return None if parameter.grad is None else local(parameter.grad)
            return self._scale.undo(local(parameter.grad))
        if source == "updates":
            before, now = self._before[layer].get(name), prepare(parameter)
            then = None if before is None else prepare(before)
            if now is None or then is None or now.shape != then.shape:
                return None
            return now - then
        return parameter


_NOTHING = nullcontext()


class _Passes(threading.local):
    """The running calls of each thread; another thread may evaluate the model meanwhile."""

    def __init__(self) -> None:
        self.under_way: list[bool] = []


def _pooled(measure: Measure, one: Partials, other: Partials) -> Partial:
    """The pooled result of two tensors, or that of one if the other could not be measured."""
    if measure in one and measure in other:
        return measure.merge(one[measure], other[measure])
    return one[measure] if measure in one else other[measure]


def _take_off(on_leaves: list[Callable[[], Any]], eager: EagerWhileObserved) -> None:
    eager.release()
    for take_off in on_leaves:
        take_off()
    on_leaves.clear()


class _Seen:
    """A tensor with its content: its measures, and the keys that want its gradient."""

    __slots__ = ("partials", "tensor", "units", "version", "wanted")

    def __init__(self, tensor: Tensor, version: int) -> None:
        self.tensor = weakref.ref(tensor)
        self.version = version
        self.partials: Partials = {}
        self.wanted: list[_Key] = []
        self.units: int | None = None  # the dimension that counts units, if known


def weights_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's own parameters other than biases, as they are now."""
    return {
        name: parameter
        for name, parameter in module._parameters.items()
        if isinstance(parameter, nn.Parameter)  # not a tensor put there by functional_call
        and "bias" not in name
        and not is_lazy(parameter)
    }


def _tensors(values: Any) -> Iterable[Tensor]:
    """The floating and complex tensors that a module takes or returns, each once."""
    if isinstance(values, Tensor) and values.is_floating_point():
        return (values,)
    found: dict[int, Tensor] = {}
    _gather(values, found)
    return found.values()


def _gather(values: Any, found: dict[int, Tensor]) -> None:
    """Find the tensors in nested values, in order; no object is searched twice."""
    waiting, looked_into = [values], dict[int, Any]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            if value.is_floating_point() or value.is_complex():
                found[id(value)] = value
            continue
        inside: Iterable[Any]
        if isinstance(value, (tuple, list)):
            inside = value
        elif isinstance(value, dict):
            inside = value.values()
        elif is_dataclass(value) and not isinstance(value, type):
            inside = [getattr(value, field.name, None) for field in fields(value)]
        else:
            continue
        if id(value) not in looked_into:
            looked_into[id(value)] = value  # holds the object, so that its id is not reused
            waiting += reversed(list(inside))


def _without_masks(keywords: Mapping[str, Any]) -> Any:
    """Keyword arguments without masks, whose infinities only mark what not to attend to."""
    return [value for name, value in keywords.items() if "mask" not in name]
