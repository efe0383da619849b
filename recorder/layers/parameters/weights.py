"""WeightMeasures: weights of layers, their gradients, updates and optimizer state in one step.

Gradients and updates of weights that a given optimizer holds are measured when it steps, so that it
does not matter what training does with them afterwards; weights, and the gradients and updates of
others, at the end of the step. What changes weights between the optimizer's step and the end is so
seen in the step in which it happens.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from flexrec.recorder.layers.failures import Failures
from flexrec.recorder.layers.measuring.collected import Collected, Key, Partials, merged, tensors_in
from flexrec.recorder.layers.measuring.measures import Measure, Number, local, prepare
from flexrec.recorder.layers.parameters.loss_scale import LossScale
from flexrec.recorder.layers.parameters.optimizers import has_closure, parameters_of, rates
from flexrec.recorder.layers.torch_private import fused_scale

_SOURCES = frozenset(("weights", "grad_weights", "updates", "state"))


class _Weight(NamedTuple):
    """A weight of a layer."""

    layer: str
    name: str
    parameter: nn.Parameter

    @property
    def place(self) -> tuple[str, str]:
        """The layer and the name, which stay if the parameter is replaced."""
        return self.layer, self.name


class WeightMeasures:
    """The measures of one step's weights, gradients, updates and optimizer state.

    With several steps of an optimizer, gradients and state are those of its last one, and updates
    are of all together.

    Args:
        layers: modules by layer name.
        measures: the measures to take, by source.
        optimizers: the names of the optimizers that call `before_optimizer` and `after_optimizer`.
        scale: the loss scale in the gradients that no optimizer was given for.
        failures: collects what could not be measured.
        keeps_gradients: whether `gradients` will be called.

    Attributes:
        rates: the learning rates of the optimizers that took a step, by key.
        has_stepped: whether an optimizer took a step.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        measures: Mapping[str, tuple[Measure, ...]],
        optimizers: Mapping[Optimizer, str],
        scale: LossScale | None,
        failures: Failures,
        *,
        keeps_gradients: bool,
    ) -> None:
        self._layers, self._measures, self._failures = layers, measures, failures
        self._optimizers, self._scale = optimizers, scale
        self._keeps_gradients = keeps_gradients
        self._owned = {weight.parameter: weight for weight in self._weights()}
        self._before: dict[tuple[str, str], Tensor] = {}
        self._taken: dict[tuple[str, nn.Parameter], Partials] = {}  # in an optimizer's step
        self._gradients: dict[nn.Parameter, Tensor] = {}
        self.rates: dict[str, Number] = {}
        self.has_stepped = False
        held = self._held()
        self._keep(weight for weight in self._weights() if weight.parameter not in held)

    def _weights(self) -> Iterator[_Weight]:
        for layer, module in self._layers.items():
            for name, parameter in weights_of(module).items():
                yield _Weight(layer, name, parameter)

    def _held(self) -> set[nn.Parameter]:
        """The parameters that the optimizers step."""
        return {each for optimizer in self._optimizers for each in parameters_of(optimizer)}

    def _keep(self, weights: Iterable[_Weight]) -> None:
        """Copy weights that no copy is kept of, if updates are wanted."""
        for weight in weights if "updates" in self._measures else ():
            if weight.place not in self._before:
                with self._failures.leaving_out(weight.layer, "updates"):
                    self._before[weight.place] = local(weight.parameter.detach()).clone()

    # ------------------------------------------------------------------ an optimizer's step

    def before_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Measure gradients, unless the step computes them itself; the step may change them."""
        weights = self._weights_of(optimizer)
        self._keep(weights)
        if not has_closure(args, kwargs):
            self._take_gradients(optimizer, weights)
        self.rates |= rates(optimizer, self._optimizers[optimizer])

    def after_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Measure what the step changed, and the optimizer's state."""
        self.has_stepped = True
        weights = self._weights_of(optimizer)
        if has_closure(args, kwargs):
            self._take_gradients(optimizer, weights)
        for weight in weights:
            if "updates" in self._measures:
                self._take("updates", weight, self._update(weight))
            state = tensors_in(optimizer.state.get(weight.parameter, {}))
            # The number of steps, which has no dimensions, would outweigh everything else.
            self._take("state", weight, (tensor for tensor in state if tensor.dim()))

    def _weights_of(self, optimizer: Optimizer) -> list[_Weight]:
        """The weights that an optimizer holds, a shared one once."""
        found = (self._owned.get(parameter) for parameter in parameters_of(optimizer))
        return [weight for weight in found if weight is not None]

    def _take_gradients(self, optimizer: Optimizer, weights: Iterable[_Weight]) -> None:
        scale = fused_scale(optimizer)
        for weight in weights:
            with self._failures.leaving_out(weight.layer, "grad_weights"):
                gradient = weight.parameter.grad
                if gradient is None:
                    self._gradients.pop(weight.parameter, None)
                    self._taken.pop(("grad_weights", weight.parameter), None)
                    continue
                gradient = local(gradient.detach())
                if scale is not None:
                    gradient = gradient / scale.to(gradient.device, non_blocking=True)
                self._take("grad_weights", weight, (gradient,))
                if self._keeps_gradients:
                    self._gradients[weight.parameter] = gradient.clone()

    def _update(self, weight: _Weight) -> tuple[Tensor, ...]:
        before, now = self._before.get(weight.place), prepare(weight.parameter)
        then = None if before is None else prepare(before)
        if now is None or then is None or now.shape != then.shape:
            return ()
        return (now - then,)

    def _take(self, source: str, weight: _Weight, tensors: Iterable[Tensor]) -> None:
        """Measure tensors of a weight now; what was measured of it before is forgotten."""
        if source not in self._measures:
            return
        found: Partials = {}
        collected = Collected(self._measures, self._failures)
        for tensor in tensors:
            with self._failures.leaving_out(weight.layer, source):
                known: Partials = {}
                collected.measure((weight.layer, source), tensor, known)
                found = merged(found, known)
        self._taken[source, weight.parameter] = found

    # ------------------------------------------------------------------ results

    def partials(self) -> dict[Key, Partials]:
        """The measures by layer and source; what no optimizer's step measured is measured now."""
        collected = Collected(self._measures, self._failures)
        held = self._held()
        shared: dict[tuple[str, nn.Parameter], Partials] = {}  # tied weights are measured once
        for source in _SOURCES & self._measures.keys():
            for weight in self._weights():
                key = weight.layer, source
                taken = self._taken.get((source, weight.parameter))
                if taken is not None:
                    collected.pool(key, taken)
                elif source == "weights" or weight.parameter not in held:
                    known = shared.setdefault((source, weight.parameter), {})
                    with self._failures.leaving_out(*key):
                        for tensor in self._now(source, weight):
                            collected.add(key, tensor, known)
        return collected.pooled

    def _now(self, source: str, weight: _Weight) -> tuple[Tensor, ...]:
        """What a source is of a weight, at the end of the step."""
        if source == "weights":
            return (weight.parameter,)
        if source == "updates":
            return self._update(weight)
        return self._gradient(weight.parameter) if source == "grad_weights" else ()

    def _gradient(self, parameter: nn.Parameter) -> tuple[Tensor, ...]:
        """The gradient of a parameter, without the scaler's scale."""
        if parameter.grad is None:
            return ()
        gradient = local(parameter.grad)
        is_scaled = self._scale is not None and not self._scale.is_undone()
        return (self._scale.undo(gradient) if self._scale and is_scaled else gradient,)

    def gradients(self, layer: str) -> dict[str, Tensor]:
        """The gradients of a layer's weights by name, without the scaler's scale."""
        held, found = self._held(), dict[str, Tensor]()
        for name, parameter in weights_of(self._layers[layer]).items():
            with self._failures.leaving_out(layer, "grad_weights"):
                if parameter in self._gradients:
                    found[name] = self._gradients[parameter]
                elif parameter not in held:
                    found.update((name, gradient) for gradient in self._gradient(parameter))
        return found


def weights_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's own parameters other than biases, as they are now."""
    return {
        name: parameter
        for name, parameter in module._parameters.items()
        if isinstance(parameter, nn.Parameter)  # not a tensor put there by functional_call
        and "bias" not in name
        and not is_lazy(parameter)
    }
