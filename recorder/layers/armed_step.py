"""One measured ("armed") step of a TooledModel: measures the calls of its layers.

Only tooled_model.py uses it. Outputs and gradients are not changed. parameters/weights.py measures
the weights.
"""

import threading
import weakref
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import unserializable_hook

from flexrec.recorder.layers.calls import EagerWhileObserved
from flexrec.recorder.layers.failures import Failures
from flexrec.recorder.layers.measuring.collected import Collected, Key, Partials, tensors_in
from flexrec.recorder.layers.measuring.costs import StepCosts
from flexrec.recorder.layers.measuring.measures import ALIVE, Measure
from flexrec.recorder.layers.measuring.units import mark, marked, units_of
from flexrec.recorder.layers.parameters.loss_scale import LossScale
from flexrec.recorder.layers.parameters.weights import WeightMeasures
from flexrec.recorder.layers.table import Calls
from flexrec.recorder.layers.torch_private import add_gradient_hook, in_backward, in_transform


class ArmedStep:
    """Collects the measures of one step, from its first training pass, or the first step of a given
    optimizer, to `close`.

    Args:
        layers: modules by layer name.
        measures: the measures to take, by source.
        roots: the ids of the whole model, of its wrappers and of the module inside them.
        trains: whether a call of a module made now belongs to a training pass.
        scale: the loss scale in the gradients.
        failures: collects what could not be measured.
        weights: the measures of the weights of the layers.
        costs: collects the times and bytes of calls; None if they are not wanted.

    Attributes:
        calls: the calls of each layer in training passes, in the order of the first ones.
        has_pass: whether a training pass has begun.
        weights: the measures of the weights of the layers.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        measures: Mapping[str, tuple[Measure, ...]],
        roots: Container[int],
        trains: Callable[[nn.Module], bool],
        scale: LossScale | None,
        failures: Failures,
        weights: WeightMeasures,
        costs: StepCosts | None = None,
    ) -> None:
        self.costs = costs
        self._measures, self._failures = measures, failures
        self._names = {id(module): name for name, module in layers.items()}
        self._roots, self._trains, self._scale = roots, trains, scale
        self._takes_inputs = not measures.keys().isdisjoint(("inputs", "grad_in"))
        self._takes_outputs = not measures.keys().isdisjoint(("outputs", "grad_out"))
        self._counts_units = ALIVE in measures.get("outputs", ())
        self._collected = Collected(measures, failures)
        self._seen: dict[int, _Seen] = {}
        self._threads = _Passes()
        self._closed = False
        self.calls: dict[str, Calls] = {}
        self.has_pass, self.weights = False, weights
        self._itself = weakref.ref(self)
        self._on_leaves: list[Callable[[], Any]] = []
        self._eager = EagerWhileObserved()
        weakref.finalize(self, _take_off, self._on_leaves, self._eager)  # without `close`

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
        self.has_pass |= self._passes[-1]
        layer = self._names.get(id(module))
        if layer is not None and self._counts_now():
            self.calls.setdefault(layer, Calls()).number += 1
        if self._takes_inputs and id(module) in self._names:
            values = args[0] if len(args) == 1 and not kwargs else (args, _without_masks(kwargs))
            self._take(module, values, "inputs", "grad_in")
        if self.costs is not None and layer is not None and self._costs_now():
            with self._failures.leaving_out(layer, "forward"):
                self.costs.enter(layer, self.depth, tensors_in((args, dict(kwargs))))

    def result(self, module: nn.Module, args: Any, output: Any) -> None:
        """Handle the output of a call."""
        if self.costs is not None and not self._closed:
            self.costs.result(self.depth, lambda: tensors_in(output))
        layer = self._names.get(id(module))
        if layer in self.calls and self._counts_now():
            with self._failures.leaving_out(layer, "outputs"):
                self.calls[layer].note(tensors_in(output))
        if self._takes_outputs and id(module) in self._names:
            self._take(module, output, "outputs", "grad_out", args if self._counts_units else None)

    def _counts_now(self) -> bool:
        """Whether this call is in a training pass, and not a repetition during backward."""
        return bool(self._passes) and self._passes[-1] and not in_backward()

    def _costs_now(self) -> bool:
        """Whether the costs of this call count."""
        return self._counts_now() and not self._closed and not in_transform()

    def leave(self, depth: int) -> None:
        """Handle the end of a call, also by an exception; `depth` calls are still running."""
        del self._passes[depth:]
        if self.costs is not None:
            self.costs.leave(depth)

    def close(self) -> None:
        """Remove all hooks; the hooks in a graph that still exists do nothing from now on."""
        self._closed = True
        if self.costs is not None:
            self.costs.close()
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
            tensors = tensors_in(values)
        for tensor in tensors:
            with self._failures.leaving_out(layer, source):
                seen = self._see(tensor)
                if args is not None:
                    seen.units = units_of(module, args, tensor, self._known_units)
                    mark(tensor, seen.units)
                if measures:
                    self._collected.add((layer, source), tensor, seen.partials, seen.units)
            if hooks and tensor.requires_grad:
                with self._failures.leaving_out(layer, gradient):
                    self._watch_gradient(tensor, seen.wanted, (layer, gradient))

    def _see(self, tensor: Tensor) -> "_Seen":
        """The entry for this tensor and content; one layer's output is another's input."""
        seen = self._seen.get(id(tensor))
        if seen is None or not seen.is_of(tensor):
            seen = self._seen[id(tensor)] = _Seen(tensor)
        return seen

    def _known_units(self, tensor: Tensor) -> int | None:
        """The units' dimension found before for this tensor, or for one it was computed from."""
        seen = self._seen.get(id(tensor))
        if seen is not None and seen.units is not None and seen.is_of(tensor):
            return seen.units
        return marked(tensor)

    def _watch_gradient(self, tensor: Tensor, wanted: list[Key], key: Key) -> None:
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

    def _take_gradient(self, gradient: Tensor, wanted: Iterable[Key]) -> None:
        if self._closed or in_transform():
            return
        known: Partials = {}
        for key in wanted:
            with self._failures.leaving_out(*key):
                if self._scale is not None:
                    self._scale.refresh()
                undo = None if self._scale is None else self._scale.undo
                self._collected.add(key, gradient, known, undo=undo)

    def partials(self) -> dict[Key, Partials]:
        """The measures collected so far, and those of the weights."""
        return {**self._collected.pooled, **self.weights.partials()}


class _Passes(threading.local):
    """The running calls of each thread; another thread may evaluate the model meanwhile."""

    def __init__(self) -> None:
        self.under_way: list[bool] = []


def _take_off(on_leaves: list[Callable[[], Any]], eager: EagerWhileObserved) -> None:
    eager.release()
    for take_off in on_leaves:
        take_off()
    on_leaves.clear()


class _Seen:
    """A tensor with its content: its measures, and the keys that want its gradient."""

    __slots__ = ("partials", "tensor", "units", "version", "wanted")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = weakref.ref(tensor)
        self.version = _version(tensor)
        self.partials: Partials = {}
        self.wanted: list[Key] = []
        self.units: int | None = None  # the dimension that counts units, if known

    def is_of(self, tensor: Tensor) -> bool:
        """Whether it is of this tensor, with the content that it has now."""
        return self.tensor() is tensor and self.version == _version(tensor)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _without_masks(keywords: Mapping[str, Any]) -> Any:
    """Keyword arguments without masks, whose infinities only mark what not to attend to."""
    return [value for name, value in keywords.items() if "mask" not in name]
