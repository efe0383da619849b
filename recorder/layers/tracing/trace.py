"""Trace: follow a training step and record its events.

Calls of modules are observed from outside; gradients and optimizers have hooks. None of them
returns anything, so outputs and gradients are not changed. format.py defines the events,
fingerprints.py the fingerprints of their values.
"""

import json
import struct
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import unserializable_hook

from flexrec.recorder.errors import DefinitionError, InputError, warn
from flexrec.recorder.layers.calls import EagerWhileObserved, Observer
from flexrec.recorder.layers.failures import error_line
from flexrec.recorder.layers.measuring.measures import Fingerprint, fingerprint, of_text
from flexrec.recorder.layers.parameters.optimizers import (
    Optimizers,
    add_hooks,
    has_closure,
    named,
    parameters_of,
)
from flexrec.recorder.layers.tooled_model import unwrapped
from flexrec.recorder.layers.torch_private import (
    COMPILED,
    add_accumulated_hook,
    add_gradient_hook,
    compiled_inside,
    dispatch_modes_are_active,
    hidden_from_modes,
    in_backward,
    in_transform,
    is_replica,
)
from flexrec.recorder.layers.tracing.environment import environment
from flexrec.recorder.layers.tracing.fingerprints import leaves, of_all
from flexrec.recorder.layers.tracing.format import ATTRIBUTES, ENVIRONMENT, ORDER, VALUES, Event

_Attributes: TypeAlias = dict[str, str]


class Trace:
    """Traces the steps of models and their optimizers.

    Args:
        current_step: returns the number of the current step.
        every: trace only steps whose number is a multiple of it.
    """

    def __init__(self, current_step: Callable[[], int], every: int = 1) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise DefinitionError(
                f"every must be a whole number of steps, 1 or more, got {every!r}"
            )
        self.every = every
        self._current_step = current_step
        self._modules: dict[nn.Module, str] = {}
        self._roots: set[nn.Module] = set()
        self._owners: dict[nn.Parameter, tuple[str, str]] = {}
        self._optimizers: dict[Optimizer, str] = {}
        self._observer, self._under_way = Observer(self), _UnderWay()
        self._permanent = ExitStack()  # takes hooks off
        self._passing = ExitStack()  # takes off those of the step
        weakref.finalize(self, self._permanent.close)  # without `remove`
        weakref.finalize(self, self._passing.close)
        self._known_order: list[Event] = []
        self._known_attributes: dict[str, _Attributes] = {}
        self._attribute_prints: dict[str, int] = {}
        self._failure: str | None = None
        self._has_warned = False
        self._forget()

    def _forget(self) -> None:
        self._is_armed = False
        self._events, self._values = list[Event](), list[Fingerprint]()
        self._counts: dict[tuple[str, str, str], int] = {}
        self._tensors: dict[int, _Seen] = {}
        self._versions: dict[nn.Parameter, int] = {}
        self._is_stepping = False  # in an optimizer's step that computes the gradients

    # ------------------------------------------------------------------ what is traced

    def watch(self, model: nn.Module, name: str, optimizers: Optimizers) -> None:
        """Trace another model and its optimizers; `name` is the prefix of its layers' names."""
        core = unwrapped(model)
        root = name or type(core).__name__
        before = f"{name}." if name else ""
        for path, module in core.named_modules():
            parts = ".".join(part for part in path.split(".") if part != COMPILED)
            self._modules.setdefault(module, f"{before}{parts}" if parts else root)
            for part, parameter in module.named_parameters(recurse=False):
                self._owners.setdefault(parameter, (self._modules[module], part))
        self._roots.add(model)
        self._observe()
        found = named(optimizers, name)
        new = {each: of for each, of in found.items() if each not in self._optimizers}
        self._optimizers |= new
        take_off = add_hooks(new, self._before_optimizer, self._after_optimizer)
        self._permanent.callback(take_off)

    def mark(self, values: Mapping[str, object]) -> dict[str, Fingerprint]:
        """Compute fingerprints, by name, of values outside of layers, such as a batch.

        Raises:
            InputError: a tensor has no elements in this process, such as one of the meta device.
        """
        found = {name: _given(name, value) for name, value in values.items()}
        known = {name: each for name, each in found.items() if each is not None}
        if self._modules and self._is_due():
            self._begin()
            for name, each in known.items():
                self._put(Event(self._kind_of(name), name), each)
        return known

    def _kind_of(self, name: str) -> str:
        """The kind of a value outside of layers: data comes before a pass, and again under its
        name before the others of the step."""
        if "loss" in name.lower():
            return "loss"
        is_early = not any(event.kind == "inputs" for event in self._events)
        return "data" if is_early or ("data", name, "") in self._counts else "value"

    def end(self) -> list[dict[str, object]]:
        """End the step; return the values to record for it, in this order."""
        if not self._is_armed:
            return []
        for module, name in self._modules.items():
            for part, buffer in module.named_buffers(recurse=False):
                self._put(Event("new_buffers", name, part), self._of(buffer))
        self._passing.close()
        found = self._recorded()
        self._forget()
        self._observe()
        if self._failure and not self._has_warned:
            self._has_warned = True
            warn(f"the trace is incomplete: {self._failure}")
        return found

    def remove(self) -> None:
        """Follow nothing any more, and remove all hooks."""
        self._observer.close()
        self._permanent.close()
        self._passing.close()
        for known in (self._modules, self._roots, self._owners, self._optimizers):
            known.clear()
        self._forget()

    def fail(self, _: str, error: Exception) -> None:
        """Note that something could not be traced and is left out."""
        self._failure = self._failure or error_line(error)

    # ------------------------------------------------------------------ the step

    def _is_due(self) -> bool:
        return self._current_step() % self.every == 0

    def _observe(self) -> None:
        """See the calls of whole models, and of every layer while the step is followed."""
        layers = self._modules if self._is_armed else ()
        self._observer.observe({**dict.fromkeys(self._roots), **dict.fromkeys(layers)})

    def _begin(self) -> None:
        """Put down how the step begins, and follow every layer."""
        if self._is_armed:
            return
        self._is_armed = True
        self._passing.callback(EagerWhileObserved().release)
        self._put(Event("random", "step"), self._of(None, _random_state))
        self._put_attributes()
        for module, name in self._modules.items():
            for part, buffer in module.named_buffers(recurse=False):
                self._put(Event("buffers", name, part), self._of(buffer))
        for parameter, (name, part) in self._owners.items():
            self._put_weight("weights", name, part, parameter)
            if parameter.requires_grad:
                hook = self._with_a_name(self._after_gradient, name, part)
                self._passing.callback(add_accumulated_hook(parameter, hook))
        self._observe()

    def _put_changed_weights(self) -> None:
        """Record again, before a pass, weights that were changed since they were recorded."""
        kind = "new_weights" if self._is_stepping else "weights"
        for parameter, (name, part) in self._owners.items():
            if self._versions.get(parameter) != _version(parameter):
                self._put_weight(kind, name, part, parameter)

    def _put_weight(self, kind: str, name: str, part: str, parameter: nn.Parameter) -> None:
        self._versions[parameter] = _version(parameter)
        self._put(Event(kind, name, part), self._of(parameter))

    def _put_attributes(self) -> None:
        """Record the attributes of layers and the environment; their text only if it changed."""
        found = {name: _attributes(module, self._owners) for module, name in self._modules.items()}
        found[ENVIRONMENT] = environment()
        for optimizer, name in self._optimizers.items():
            for i, group in enumerate(optimizer.param_groups):
                found[f"{name}.{i}"] = _texts_of(group)
        for name, attributes in found.items():
            if self._known_attributes.get(name) != attributes:
                self._attribute_prints[name] = of_text(repr(attributes))
        for name in self._modules.values():
            self._put(Event("attributes", name), self._attribute_prints[name])
        self._attributes = found

    def _recorded(self) -> list[dict[str, object]]:
        texts: dict[str, object] = {}
        if self._events != self._known_order:
            self._known_order = self._events
            texts[ORDER] = json.dumps(self._events)
        if self._attributes != self._known_attributes:
            self._known_attributes = self._attributes
            texts[ATTRIBUTES] = json.dumps(self._attributes)
        return [*([texts] if texts else []), {VALUES: _together(self._values)}]

    def _put(self, event: Event, value: Fingerprint | None) -> int:
        """Record an event; return the number of its call."""
        counted = event[:3]
        call = self._counts[counted] = self._counts.get(counted, -1) + 1
        if value is not None:
            self._events.append(event._replace(call=call))
            self._values.append(value)
        return call

    # ------------------------------------------------------------------ the calls

    def step_of(self, module: nn.Module) -> "Trace | None":
        """Itself, if the call that begins now is a pass, or a part of one that is followed."""
        if in_transform() or is_replica(module):
            return None
        if self._is_pass(module):
            if not self._is_due():
                return None
            if torch.is_grad_enabled():
                self._begin()
            if self._is_armed:
                self._put_changed_weights()
            return self
        is_part = module in self._modules and (in_backward() or self._within.trains)
        return self if self._is_armed and is_part else None

    @property
    def depth(self) -> int:
        """How many calls are under way in this thread."""
        return len(self._under_way.calls)

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Put down what goes into a module."""
        within = self._within
        trains = torch.is_grad_enabled() if self._is_pass(module) else within.trains
        name = self._modules.get(module)
        is_followed = name is not None and (trains or in_backward())
        if name is not None and is_followed:
            try:
                self._put_inputs(name, args, kwargs)
            except Exception as error:  # noqa: BLE001 - training goes on, whatever happens here
                self.fail(name, error)
        self._under_way.calls.append(_Call(name or within.name, trains, is_followed))

    def result(self, _module: nn.Module, _args: Any, output: Any) -> None:
        """Put down what comes out."""
        self._end_call(output)

    def leave(self, depth: int) -> None:
        """So many calls are still under way: an exception has ended the others."""
        while self.depth > depth:
            self._end_call(None)

    def _is_pass(self, module: nn.Module) -> bool:
        """Whether a call of it begins a pass: it is a whole model, and does not run again."""
        is_root = module in self._roots or compiled_inside(module) in self._roots
        return is_root and not in_backward()

    @property
    def _within(self) -> "_Call":
        """The innermost call that is under way in this thread."""
        calls = self._under_way.calls
        return calls[-1] if calls else _Call("", trains=False, is_followed=False)

    def _put_inputs(self, name: str, args: Any, kwargs: Any) -> None:
        again = "again_" if in_backward() else ""
        self._put(self._event(f"{again}random", name), self._of(None, _random_state))
        self._enter(f"{again}inputs", f"{again}grad_in", name, (args, kwargs))

    def _end_call(self, output: Any) -> None:
        call = self._under_way.calls.pop()
        if call.is_followed and self._is_armed and not in_transform():
            again = "again_" if in_backward() else ""
            try:
                self._enter(f"{again}outputs", f"{again}grad_out", call.name, output)
            except Exception as error:  # noqa: BLE001 - training goes on, whatever happens here
                self.fail(call.name, error)

    def _event(self, kind: str, name: str, part: str = "", tag: int = -1) -> Event:
        return Event(kind, name, part, 0, self._within.name, tag)

    def _enter(self, kind: str, gradient: str, name: str, values: Any) -> None:
        """Record inputs or outputs, and follow the gradients of their tensors."""
        tensors = [value for value in leaves(values) if isinstance(value, Tensor)]
        tag = self._see(tensors[0]).tag if tensors else -1
        found = self._of(values, self._of_seen)
        call = self._put(self._event(kind, name, "", tag), found)
        if torch.is_grad_enabled():
            for i, tensor in enumerate(tensors):
                if tensor.requires_grad:
                    seen = self._see(tensor)
                    event = self._event(gradient, name, f"{call}.{i}", seen.tag)
                    self._follow_gradient(tensor, seen, event)

    def _of_seen(self, values: Any) -> Fingerprint | None:
        return of_all(values, lambda tensor: self._see(tensor).fingerprint())

    def _of(
        self, values: Any, take: Callable[[Any], Fingerprint | None] = of_all
    ) -> Fingerprint | None:
        """The result of `take` for values; None if it fails, so that training goes on."""
        try:
            if dispatch_modes_are_active():
                with hidden_from_modes():
                    found = take(values)
            else:
                found = take(values)
        except Exception as error:  # noqa: BLE001 - whatever it is
            self.fail("a value", error)
            return None
        return None if isinstance(found, Tensor) and found.is_meta else found

    def _follow_gradient(self, tensor: Tensor, seen: "_Seen", event: Event) -> None:
        seen.wanted.append(event)
        if len(seen.wanted) > 1:
            return
        itself, wanted, events = weakref.ref(self), seen.wanted, self._events

        @unserializable_hook  # type: ignore[untyped-decorator]
        def take(gradient: Tensor | None) -> None:
            trace = itself()
            if trace is not None and gradient is not None and trace._events is events:
                trace._take_gradient(wanted, gradient)

        take_off = add_gradient_hook(tensor, take)
        if tensor.is_leaf:  # outlives the step
            self._passing.callback(take_off)

    def _take_gradient(self, wanted: Sequence[Event], gradient: Tensor) -> None:
        if not self._is_armed or in_transform():
            return
        found = self._of(gradient)
        for event in sorted(wanted, key=lambda each: each.kind, reverse=True):  # out before in
            self._put(event, found)

    def _see(self, tensor: Tensor) -> "_Seen":
        """The entry for this tensor and content; one layer's output is another's input."""
        version = _version(tensor)
        seen = self._tensors.get(id(tensor))
        if seen is None or seen.version != version or seen.tensor() is not tensor:
            tag = self._counts["tag", "", ""] = self._counts.get(("tag", "", ""), -1) + 1
            seen = self._tensors[id(tensor)] = _Seen(tensor, version, tag)
        return seen

    # ------------------------------------------------------------------ gradients and optimizers

    def _with_a_name(self, method: Callable[..., None], *names: str) -> Callable[[Tensor], None]:
        itself, function = weakref.ref(self), method.__func__  # type: ignore[attr-defined]

        @unserializable_hook  # type: ignore[untyped-decorator]
        def call(tensor: Tensor) -> None:
            trace = itself()
            if trace is not None:
                function(trace, *names, tensor)

        hook: Callable[[Tensor], None] = call
        return hook

    def _after_gradient(self, name: str, part: str, parameter: Tensor) -> None:
        if self._is_armed and parameter.grad is not None:
            self._put(Event("raw_grad", name, part), self._of(parameter.grad))

    def _before_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        computes_gradients = has_closure(args, kwargs)
        if computes_gradients and self._is_due():
            self._begin()  # its passes come later
        if not self._is_armed:
            return
        name = self._optimizers[optimizer]
        self._is_stepping = computes_gradients
        for i, group in enumerate(optimizer.param_groups):
            for setting, value in group.items():
                if setting != "params":
                    self._put(Event("settings", name, f"{i}.{setting}"), self._of(value, _setting))
        for (layer, part), parameter in self._parameters(optimizer):
            if not computes_gradients:
                self._put_gradient(layer, part, parameter)
            self._put(Event("state", layer, part), self._of(optimizer.state.get(parameter, {})))

    def _put_gradient(self, layer: str, part: str, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self._put(Event("grad_norm", layer, part), self._of(parameter.grad, _norm))
            self._put(Event("grad", layer, part), self._of(parameter.grad))

    def _after_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._is_stepping = False
        if self._is_armed:
            for (layer, part), parameter in self._parameters(optimizer):
                if has_closure(args, kwargs):
                    self._put_gradient(layer, part, parameter)
                self._put_weight("new_weights", layer, part, parameter)

    def _parameters(self, optimizer: Optimizer) -> Iterator[tuple[tuple[str, str], nn.Parameter]]:
        """The parameters of an optimizer that belong to a layer."""
        for parameter in parameters_of(optimizer):
            owner = self._owners.get(parameter)
            if owner is not None:
                yield owner, parameter


class _Call(NamedTuple):
    """A call that is under way.

    Attributes:
        name: of the layer; of a wrapper that of the layer that it is in, or "".
        trains: whether it is of a pass with gradients.
        is_followed: whether its inputs were put down, so that its outputs will be.
    """

    name: str
    trains: bool
    is_followed: bool


class _UnderWay(threading.local):
    """The calls of each thread: another may evaluate the model meanwhile."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []


class _Seen:
    """A tensor of the step, with its content at that time."""

    def __init__(self, tensor: Tensor, version: int, tag: int) -> None:
        self.tensor, self.version, self.tag = weakref.ref(tensor), version, tag
        self.wanted = list[Event]()  # events of its gradient
        self._found: Fingerprint | None = None

    def fingerprint(self) -> Fingerprint:
        """The tensor's fingerprint, computed once."""
        tensor = self.tensor()
        if self._found is None and tensor is not None:
            self._found = fingerprint(tensor)
        return 0 if self._found is None else self._found


def _version(tensor: Tensor) -> int:
    """A number that changes if the tensor is changed in place, except through `.data`."""
    return -1 if tensor.is_inference() else tensor._version


def _given(name: str, value: object) -> Fingerprint | None:
    try:
        found = of_all(value)
        if isinstance(found, Tensor) and found.is_meta:
            raise ValueError("a tensor of the device meta has no elements")
        return found
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{name!r}: cannot compute a fingerprint: {error_line(error)}") from None


def _attributes(
    module: nn.Module, owners: Mapping[nn.Parameter, tuple[str, str]]
) -> dict[str, str]:
    """A layer's attributes: its class, its plain attributes, and the owners of its weights."""
    found = {"class": type(module).__name__}
    for name, value in vars(module).items():
        if name[0] != "_" and isinstance(value, (bool, int, float, str, tuple)):
            found[name] = repr(value)
    for name, parameter in module.named_parameters(recurse=False):
        owner = owners.get(parameter)
        found[f"{name}.requires_grad"] = repr(parameter.requires_grad)
        found[f"{name}.is"] = ".".join(owner) if owner else "of no layer"
    return found


def _texts_of(group: Mapping[str, Any]) -> _Attributes:
    """An optimizer's settings other than numbers; numbers are recorded as values."""
    return {
        name: repr(value)
        for name, value in group.items()
        if name != "params" and not isinstance(value, (bool, int, float, Tensor))
    }


def _random_state(_: object = None) -> Fingerprint:
    """The fingerprint of the states of the CPU's and the current accelerator's generators."""
    state = fingerprint(torch.get_rng_state())
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return of_all((torch.cuda.get_rng_state(), state)) or state
    return state


def _setting(value: Any) -> Fingerprint:
    """The bits of a number, or the fingerprint of any other setting."""
    if isinstance(value, Tensor):
        return fingerprint(value)
    if isinstance(value, (bool, int, float)):
        return _bits(float(value))
    return of_text(repr(value))


def _norm(gradient: Tensor) -> Fingerprint:
    """The bits of the Euclidean norm, computed in float64."""
    gradient = gradient.coalesce().values() if gradient.is_sparse else gradient
    norm = torch.linalg.vector_norm(gradient.detach(), dtype=torch.float64)
    return _bits(norm.item()) if norm.is_cpu else norm.view(torch.int64)


def _bits(number: float) -> int:
    bits: int = struct.unpack("<q", struct.pack("<d", number))[0]
    return bits


def _together(values: Sequence[Fingerprint]) -> Tensor:
    """(n,) int64: all values in one tensor, on the accelerator if some are there."""
    there = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
    whole = torch.tensor([0 if isinstance(v, Tensor) else v for v in values], dtype=torch.int64)
    if not there:
        return whole
    found = [value for value in values if isinstance(value, Tensor)]
    device = found[0].device
    whole = whole.to(device)
    places = torch.tensor(there, device=device)
    whole[places] = torch.stack([value.to(device) for value in found])
    return whole
