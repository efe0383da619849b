"""One armed step of a TooledModel: its hooks on the layers, and what they measure.

Only tooled_model.py uses it. A hook never returns anything, so outputs and gradients stay as
they are.
"""

import sys
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from types import FrameType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle, unserializable_hook

from flexrec.recorder.errors import DefinitionError
from flexrec.recorder.layers.eager import EagerWhileHooked
from flexrec.recorder.layers.loss_scale import LossScale, Scaler
from flexrec.recorder.layers.measures import ALIVE, Measure, Partial, prepare
from flexrec.recorder.layers.safe_hook import NO_KEYWORDS, Hook, error_line
from flexrec.recorder.layers.torch_private import (
    MODULE_CALL,
    dispatch_modes_are_active,
    forward_hooks,
    forward_pre_hooks,
    forward_pre_hooks_with_kwargs,
    hidden_from_modes,
    in_backward,
    in_transform,
)

Partials: TypeAlias = dict[Measure, Partial]
_Key: TypeAlias = tuple[str, str]  # layer, source
_Entry: TypeAlias = tuple[dict[int, Any], int]  # a module's table of hooks, and a key in it
_OF_PARAMETERS = frozenset({"weights", "grad_weights", "updates"})
_CHANNELS_FIRST = (
    *(nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d),
    *(nn.MaxPool1d, nn.AvgPool1d, nn.LPPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d),
)


class ArmedStep:
    """The hooks of one step, from its first training pass to `close`, and what they collect.

    Args:
        model: what the user calls.
        layers: modules by layer.
        measures: what to measure, by source.
        scaler: the GradScaler whose scale is in the gradients.

    Attributes:
        failure: why something could not be measured, the first of such errors in words.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        measures: Mapping[str, tuple[Measure, ...]],
        scaler: Scaler | None,
    ) -> None:
        self._model, self._layers, self._measures = model, layers, measures
        self._names = {module: name for name, module in layers.items()}
        self._counts_units = ALIVE in measures.get("outputs", ())
        self._scale = (
            LossScale(scaler, model) if scaler is not None and scaler.is_enabled() else None
        )
        self._collected: dict[_Key, Partials] = {}
        self._seen: dict[int, _Seen] = {}
        self._passes: list[bool] = []  # calls of the whole model: whether it is a training pass
        self._closed = False
        self.failure: str | None = None
        self._before: dict[str, dict[str, Tensor]] = {}
        if "updates" in measures:
            self._before = {
                name: {key: p.detach().clone() for key, p in _weights(module).items()}
                for name, module in layers.items()
            }
        self._itself = weakref.ref(self)
        self._handles: list[RemovableHandle] = []
        self._entries: list[_Entry] = []
        self._eager = EagerWhileHooked()
        weakref.finalize(self, _take_off, self._handles, self._entries, self._eager)  # no `close`
        self._register()

    def _register(self) -> None:
        if not self._measures.keys().isdisjoint(("inputs", "grad_in")):
            before = Hook(self._before_layer)
            for module in self._names:
                if module is not self._model:  # a hook that is made by a hook misses this pass
                    self._enter(forward_pre_hooks(module), before)
                    self._enter(forward_pre_hooks_with_kwargs(module), before, True)
        if not self._measures.keys().isdisjoint(("outputs", "grad_out")):
            after = Hook(self._after_layer)
            for module in self._names:
                self._enter(forward_hooks(module), after)
        leave = Hook(self._leave)
        self._handles.append(self._model.register_forward_hook(leave, always_call=True))

    def _enter(self, table: dict[int, Any], hook: Hook, entry: Any = None) -> None:
        """What `register_forward_hook` does, without its handle, which takes longer than a hook."""
        table[id(hook)] = entry or hook
        self._entries.append((table, id(hook)))

    # ------------------------------------------------------------------ the passes

    def enter(self, is_training: bool, args: Any, kwargs: Any) -> None:
        """The model is called, in its own pre-hook: a training pass begins, or another within
        one, as of a model that calls itself."""
        if self._passes:
            del self._passes[_calls_under_way(self._model) :]  # what an interrupt left
        if is_training or self._passes:
            self._passes.append(is_training)
        if is_training and self._model in self._names:
            self._before_layer(self._model, args, kwargs)

    def _leave(self, *_: Any) -> None:
        """The call is over, by its end or by an exception."""
        if self._passes:
            self._passes.pop()

    def fail(self, error: Exception) -> None:
        """Something could not be measured, and is left out."""
        self.failure = self.failure or error_line(error)

    def close(self) -> None:
        """Take all hooks off; a graph that is kept fires into nothing from now on."""
        self._closed = True
        _take_off(self._handles, self._entries, self._eager)
        self._passes.clear()
        self._seen.clear()

    # ------------------------------------------------------------------ the hooks

    def _before_layer(self, module: nn.Module, args: Any, kwargs: Any = NO_KEYWORDS) -> None:
        # Without keywords: another thread took the hook's entry off meanwhile.
        values = args[0] if len(args) == 1 and not kwargs else (args, _without_masks(kwargs))
        self._take(module, values, "inputs", "grad_in")

    def _after_layer(self, module: nn.Module, args: Any, output: Any) -> None:
        self._take(module, output, "outputs", "grad_out", args if self._counts_units else ())

    def _take(
        self, module: nn.Module, values: Any, source: str, gradient: str, args: Any = ()
    ) -> None:
        # A checkpointed part runs again during backward: its values were measured the first
        # time; its gradients, where the first run had none, flow through the second.
        again = in_backward()
        if not (again or (self._passes and self._passes[-1])) or self._closed or in_transform():
            return
        measuring = source in self._measures and not again
        hooking = gradient in self._measures and torch.is_grad_enabled()
        layer = self._names[module]
        for tensor in _tensors(values):
            channels_first = (
                args and tensor.dim() == 3 and self._gives_channels(module, args, tensor)
            )
            seen = self._see(tensor)
            seen.channels_first |= bool(channels_first)
            if measuring:
                self._add(
                    self._collected,
                    (layer, source),
                    tensor,
                    seen.partials,
                    channels_first=seen.channels_first,
                )
            if hooking and tensor.requires_grad:
                self._watch_gradient(tensor, seen.wanted, (layer, gradient))

    def _gives_channels(self, module: nn.Module, args: Any, output: Tensor) -> bool:
        """Whether what a layer gives is (N, C, L) and not (N, L, C): a convolution's is, and what
        the layers after it make of that element by element."""
        if isinstance(module, _CHANNELS_FIRST):
            return True
        seen = self._seen.get(id(args[0]))
        before = seen.tensor() if seen is not None and seen.channels_first else None
        if before is None or before is not args[0] or before.shape != output.shape:
            return False
        return all(p.dim() < 2 for p in module.parameters(recurse=False))

    def _see(self, tensor: Tensor) -> "_Seen":
        """What is known of this tensor and content: one layer's output is another's input."""
        version = -1 if tensor.is_inference() else tensor._version
        seen = self._seen.get(id(tensor))
        if seen is None or seen.version != version or seen.tensor() is not tensor:
            seen = self._seen[id(tensor)] = _Seen(tensor, version)
        return seen

    def _watch_gradient(self, tensor: Tensor, wanted: list[_Key], key: _Key) -> None:
        if key in wanted:
            return
        wanted.append(key)
        if len(wanted) > 1:
            return

        itself = self._itself  # a graph that is kept does not keep the step

        @unserializable_hook  # type: ignore[untyped-decorator]
        def take(gradient: Tensor | None) -> None:
            step = itself()
            if gradient is not None and step is not None:
                step._take_gradient(gradient, wanted)

        handle = tensor.register_hook(take)
        if tensor.is_leaf:  # outlives the step
            self._handles.append(handle)

    def _take_gradient(self, gradient: Tensor, wanted: Iterable[_Key]) -> None:
        if self._closed or in_transform():
            return
        known: Partials = {}
        try:
            if self._scale is not None:
                self._scale.refresh()
            for key in wanted:
                self._add(self._collected, key, gradient, known, self._scale)
        except DefinitionError:
            raise
        except Exception as error:  # noqa: BLE001 - as in Hook
            self.fail(error)

    def _add(
        self,
        collected: dict[_Key, Partials],
        key: _Key,
        tensor: Tensor,
        known: Partials,
        scale: "LossScale | None" = None,
        channels_first: bool = False,
    ) -> None:
        """Pool a tensor's measures into a key's; `known` holds what was measured of it before.

        What is in `collected` is never changed, but replaced: it may be `known` of many keys.
        """
        measures = self._measures[key[1]]
        missing = [measure for measure in measures if measure not in known]
        if missing:
            if dispatch_modes_are_active():
                with hidden_from_modes():
                    _measure(tensor, missing, known, scale, channels_first)
            else:
                _measure(tensor, missing, known, scale, channels_first)
            if missing[0] not in known:
                return
        pooled = collected.get(key)
        if pooled is None:
            collected[key] = known
        else:
            collected[key] = {m: m.merge(pooled[m], known[m]) for m in measures}

    # ------------------------------------------------------------------ what was collected

    def partials(self) -> dict[_Key, Partials]:
        """All that was collected so far; parameters are measured now."""
        collected = dict(self._collected)
        shared: dict[tuple[str, int], Partials] = {}  # tied parameters are measured once
        sources = _OF_PARAMETERS & self._measures.keys()
        for layer, module in self._layers.items():
            weights = _weights(module)
            for source in sources if weights else ():
                for name, tensor in self._parameters(layer, weights, source).items():
                    known = shared.setdefault((source, id(weights[name])), {})
                    try:
                        self._add(collected, (layer, source), tensor, known)
                    except DefinitionError:
                        raise
                    except Exception as error:  # noqa: BLE001 - as in Hook
                        self.fail(error)
        return collected

    def gradients(self, layer: str) -> dict[str, Tensor]:
        """The gradients of a layer's weights by name, without the scaler's scale."""
        return self._parameters(layer, _weights(self._layers[layer]), "grad_weights")

    def _parameters(
        self, layer: str, weights: dict[str, nn.Parameter], source: str
    ) -> dict[str, Tensor]:
        if source == "grad_weights":
            gradients = {name: p.grad for name, p in weights.items() if p.grad is not None}
            if self._scale is None or self._scale.is_undone():
                return gradients
            return {name: self._scale.undo(gradient) for name, gradient in gradients.items()}
        if source == "updates":
            before, updates = self._before[layer], dict[str, Tensor]()
            for name, parameter in weights.items():
                if name in before and before[name].shape == parameter.shape:
                    now, then = prepare(parameter), prepare(before[name])
                    if now is not None and then is not None:
                        updates[name] = now - then
            return updates
        return dict(weights)


def _measure(
    tensor: Tensor,
    measures: Iterable[Measure],
    known: Partials,
    scale: "LossScale | None",
    channels_first: bool,
) -> None:
    """Add what the measures make of a tensor, if it can be measured."""
    prepared = prepare(tensor)
    if prepared is None:
        return
    if scale is not None:
        prepared = scale.undo(prepared)
    for measure in measures:
        units_last = channels_first and measure is ALIVE
        known[measure] = measure.of(prepared.transpose(1, 2) if units_last else prepared)


def _take_off(
    handles: list[RemovableHandle], entries: list[_Entry], eager: EagerWhileHooked
) -> None:
    eager.release()
    for handle in handles:
        handle.remove()
    for table, key in entries:
        table.pop(key, None)
    handles.clear()
    entries.clear()


class _Seen:
    """One tensor with one content: what was measured of it, and who wants its gradient."""

    __slots__ = ("channels_first", "partials", "tensor", "version", "wanted")

    def __init__(self, tensor: Tensor, version: int) -> None:
        self.tensor = weakref.ref(tensor)
        self.version = version
        self.partials: Partials = {}
        self.wanted: list[_Key] = []
        self.channels_first = False  # it is known to be (N, C, L)


def _weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's own parameters other than biases, as they are now."""
    return {
        name: parameter
        for name, parameter in module._parameters.items()
        if isinstance(parameter, nn.Parameter)  # and not what functional_call put there
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
    """Find them, however nested, in the order in which they stand; nothing is looked into twice."""
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
            looked_into[id(value)] = value  # held, so that no id comes again
            waiting += reversed(list(inside))


def _calls_under_way(model: nn.Module) -> int:
    """How many calls of a module this one, which is in its pre-hook, is within."""
    frame: FrameType | None = sys._getframe()
    found = -1
    while frame is not None:
        if frame.f_code is MODULE_CALL and frame.f_locals.get("self") is model:
            found += 1
        frame = frame.f_back
    return max(found, 0)


def _without_masks(keywords: Mapping[str, Any]) -> Any:
    """Keyword arguments but for masks, whose infinities say what not to attend to."""
    return [value for name, value in keywords.items() if "mask" not in name]
