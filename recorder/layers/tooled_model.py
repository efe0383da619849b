"""TooledModel: statistics of a model's layers, step by step.

measuring/ defines the statistics and measures tensors, calls.py observes calls, armed_step.py
collects the measures of one step, and parameters/ those of weights. This module uses no files.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Self, TypeAlias, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flexrec.recorder.errors import DefinitionError, listed, nearest, warn
from flexrec.recorder.events import Array, Later
from flexrec.recorder.layers.armed_step import ArmedStep
from flexrec.recorder.layers.calls import Observer
from flexrec.recorder.layers.failures import Failures
from flexrec.recorder.layers.measuring.costs import StepCosts, clock_for
from flexrec.recorder.layers.measuring.gradient_noise import GradientStream
from flexrec.recorder.layers.measuring.measures import MOMENTS, Number, norm, ratio
from flexrec.recorder.layers.measuring.statistics import (
    Plan,
    Stat,
    measures_of,
    plan,
    split_costs,
)
from flexrec.recorder.layers.models import Description
from flexrec.recorder.layers.parameters.loss_scale import LossScale, Scaler
from flexrec.recorder.layers.parameters.optimizers import Optimizers as Optimizers
from flexrec.recorder.layers.parameters.optimizers import add_hooks, named
from flexrec.recorder.layers.parameters.weights import WeightMeasures, weights_of
from flexrec.recorder.layers.table import Calls, Table, describe, layer_table
from flexrec.recorder.layers.torch_private import (
    COMPILED,
    has_compiled,
    in_backward,
    in_transform,
    is_replica,
    is_replica_of,
)

_SOON = 100  # steps after which to warn about missing statistics
_IDLE = 10  # idle steps of an optimizer that mean nothing; nor do three times its longest pause

Layers: TypeAlias = str | Iterable[str] | Callable[[str, nn.Module], bool] | None
"""The layers to use: names and patterns, a predicate of name and module, or None for all."""


class ModelOptions(TypedDict, total=False):
    """The options of TooledModel, for functions that pass them on; see TooledModel."""

    sources: Iterable[str]
    stats: Iterable[Stat]
    layers: Layers
    every: int
    scaler: Scaler | None
    name: str
    optimizer: Optimizers


Result: TypeAlias = float | Array | Tensor | Later
"""The value of a statistic; of an accelerator a tensor there, or a number that is read later."""

Module: TypeAlias = nn.Module
"""For modules that may not import torch."""


class TooledModel:
    """Compute statistics of a model's layers: of inputs, outputs, gradients and weights.

    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> tooled = TooledModel(model)
    >>> model(torch.randn(16, 8)).square().mean().backward()
    >>> list(tooled.step())[:4]
    ['0/grad_out/mean', '0/grad_out/std', '0/inputs/mean', '0/inputs/std']

    Keys are `layer/source/statistic`, where the layer is its dotted path in the model. Layers are
    the modules without children and those with parameters of their own. docs/tooled_model.md
    explains every source and statistic. The model itself is not changed, nor are its results,
    copies and pickles. Of a DTensor only this process's part is measured.

    Args:
        model: any module, including one returned by torch.compile or DistributedDataParallel.
        sources: any of grad_in, grad_out, inputs, outputs, weights, grad_weights, updates.
        stats: names in `flexrec.recorder.layers.measuring.statistics.STATISTICS`, and functions
            from a tensor to a number, such as torch.var, whose `__name__` becomes part of the key;
            also "seconds" and "bytes", what each layer's calls cost.
        layers: the layers to measure, by default all; an exact name may also be that of a block.
        every: measure ("arm") the first step, and then one in `every` steps.
        scaler: the GradScaler in use; gradients are divided by its scale.
        name: the model's name, a prefix of its layers' names, as if it were part of a larger model:
            `TooledModel(critic, name="critic")` gives `critic.0/weights/std`.
        optimizer: the model's optimizer, or several: gradients and updates are measured when it
            steps, and its learning rates (`optimizer/group0/lr`) and the norm of its state
            (`layer/state/norm`) as well.

    Raises:
        DefinitionError: a source, statistic or layer does not exist, the model is not a module or
            is in DataParallel, or the optimizer is not one of torch.optim.
    """

    def __init__(
        self,
        model: nn.Module,
        sources: Iterable[str] = ("grad_in", "grad_out", "inputs", "weights"),
        stats: Iterable[Stat] = ("mean", "std"),
        *,
        layers: Layers = None,
        every: int = 1,
        scaler: Scaler | None = None,
        name: str = "",
        optimizer: Optimizers = None,
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise DefinitionError(
                f"every must be a whole number of steps, 1 or more, got {every!r}"
            )
        self._model, self._core = model, unwrapped(model)
        self._roots = _wrappers(model)
        self._wanted, self._name = layers, name
        chosen = choose_layers(self._core, layers, name)
        _check_layers(model, chosen)
        self._optimizers = named(optimizer, name)
        self._costs, others = split_costs(stats)
        self._plan: Plan = {}
        if others or not self._costs:
            self._plan = plan(sources, others, state=bool(self._optimizers))
        self._measures = measures_of(self._plan)
        self._every, self._scaler = every, scaler
        self._steps = self._idle = 0  # idle: armed steps since the last one of an optimizer
        self._pause = 0  # the longest time that it was idle before it took a step
        self._is_removed = self._was_armed = self._had_gradients = False
        self._measured_updates = self._had_updates = self._has_stepped = False
        self._failures = Failures()
        self._armed: ArmedStep | None = None
        self._calls: dict[str, Calls] | None = None  # of the first armed step with these layers
        self._is_described = False
        self._latest: dict[str, Result] = {}
        self._streams: dict[str, GradientStream] = {}
        self._gone = set[str]()  # layers that a warning has named as removed
        self._observer = Observer(self)
        self._take_hooks_off = add_hooks(
            self._optimizers, self._before_optimizer, self._after_optimizer
        )
        weakref.finalize(self, self._take_hooks_off)  # without `remove`
        self._set_layers(chosen)

    def _set_layers(self, layers: dict[str, nn.Module]) -> None:
        """Set the layers, and note the model's current tree of modules."""
        self._layers, self._calls, self._is_described = layers, None, False
        self._keys = {
            (layer, source): tuple((f"{layer}/{source}/{s.name}", s) for s in statistics)
            for layer in layers
            for source, statistics in self._plan.items()
        }
        self._tree = {module: _children(module) for module in self._model.modules()}
        self._observe()

    def _observe(self) -> None:
        """Observe the calls of all parts of the model while the step is due."""
        if self._due() and not self._is_removed:
            self._observer.observe(self._tree)
        else:
            self._observer.close()

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers, in the model's order."""
        return tuple(self._layers)

    @property
    def optimizers(self) -> dict[Optimizer, str]:
        """The optimizers, and their names, with which the keys of their learning rates begin."""
        return dict(self._optimizers)

    @property
    def is_removed(self) -> bool:
        """Whether `remove` was called."""
        return self._is_removed

    @property
    def silence(self) -> str | None:
        """Why statistics are missing, as a message; None if none are missing."""
        if self._is_removed:
            return None
        if not self._steps:
            return "step() was never called" if self._armed is not None else None
        if not self._was_armed:
            where = "; what a compiled function calls is not seen: compile the model instead"
            return (
                "there was no pass through it, or through a part of it, in training mode, with "
                "gradients"
            ) + (where if has_compiled() else "")
        if self._optimizers:
            if not self._has_stepped:
                return "its optimizer took no step that was measured"
            return self._replaced() if self._idle > self._patience else None
        if "grad_weights" in self._plan and not self._had_gradients:
            return "its weights had no gradients at step(): call it before they are set to zero"
        if self._measured_updates and not self._had_updates:
            return "no weight had changed at step(): call it after the optimizer's step"
        return None

    def step(self) -> dict[str, Result]:
        """End the step and return its statistics by key.

        Call it after the optimizer's step and before gradients are set to zero; with `optimizer`,
        anywhere outside of its step. The result is empty if the step was not armed, or neither a
        training pass ran nor the optimizer. On the CPU values are floats, or arrays
        for histograms. On an accelerator they are tensors there, the 0-d ones views of a single
        tensor, and nothing waits for it; seconds are numbers that `float` waits for.
        """
        armed, self._armed = self._armed, None
        if self._steps == _SOON and self.silence:
            warn(f"statistics of a tooled model are missing so far: {self.silence}")
        was_due = self._due()
        self._steps += 1
        if was_due != self._due():
            self._observe()
        if armed is not None:
            armed.close()
            if armed.has_pass:
                self._was_armed = True
                self._calls = armed.calls if self._calls is None else self._calls
            self._note_optimizer(armed)
            self._latest = {}
            with self._failures.leaving_out("all of a step"):
                self._feed_streams(armed)
                self._latest = self._settled(self._collect(armed))
        self._failures.tell()
        return dict(self._latest) if armed is not None else {}

    def new_description(self) -> dict[str, Description] | None:
        """Describe the layers by model name, after the first armed step; later None.

        Again after modules were replaced in the model. `Recording.models` explains the fields.
        """
        if self._calls is None or self._is_described:
            return None
        self._is_described = True
        with self._failures.leaving_out("the description of the model"):
            name = self._name or type(self._core).__name__
            return {name: describe(self._layers, self._calls, weights_of)}
        return None

    def stats(self) -> dict[str, dict[str, dict[str, float | Array]]]:
        """The last result of `step`, on the CPU, nested by layer, source and statistic.

        During an armed step, the statistics collected so far. Waits for an accelerator.
        """
        armed = self._armed
        values = self._latest if armed is None else self._settled(self._collect(armed))
        nested: dict[str, dict[str, dict[str, float | Array]]] = {}
        for key, value in _fetched(values).items():
            layer, source, name = key.rsplit("/", 2)
            nested.setdefault(layer, {}).setdefault(source, {})[name] = value
        return nested

    def table(self) -> Table:
        """Format `stats()` as a table: sources above statistics, one row per layer."""
        return layer_table(self.stats())

    def print_table(self) -> None:
        """Print `table()`."""
        print(self.table())

    def reset(self) -> None:
        """Start a new window, such as an epoch, for signal, noise and snr."""
        self._streams.clear()

    def remove(self) -> None:
        """Stop watching the model; the last statistics can still be read."""
        self._is_removed = True
        self._observer.close()
        self._take_hooks_off()
        if self._armed is not None:
            self._armed.close()
            self._armed = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, for example as part of a copied module, watches nothing."""
        return _removed, ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    # ------------------------------------------------------------------ inside

    def fail(self, what: str, error: Exception) -> None:
        """Note that something could not be measured and is left out."""
        self._failures.add(what, error)

    def step_of(self, module: nn.Module) -> ArmedStep | None:
        """The armed step that a call belongs to; armed now if due and a training pass begins."""
        if is_replica(module):
            self._check_replica(module)
        if self._armed is None and self._trains(module) and not (in_backward() or in_transform()):
            self._arm()
        return self._armed

    def _arm(self) -> ArmedStep:
        """The step that is measured now; begins it if necessary."""
        if self._armed is None:
            self._follow_layers()
            scale = None
            if self._scaler is not None and self._scaler.is_enabled():
                scale = LossScale(self._scaler, self._core)
            known = self._layers, self._measures
            weights = WeightMeasures(
                *(*known, self._optimizers, scale, self._failures),
                keeps_gradients=self._needs_streams(),
            )
            costs = None
            if self._costs:
                clock = clock_for(self._core.parameters())
                costs = StepCosts(self._costs, self._failures, clock)
            self._armed = ArmedStep(
                *(*known, self._roots, self._trains, scale, self._failures, weights, costs)
            )
        return self._armed

    def _note_optimizer(self, armed: ArmedStep) -> None:
        """Note whether an optimizer took a step; warn once if none does so any more."""
        if armed.weights.has_stepped:
            self._pause = max(self._pause, self._idle)
            self._has_stepped, self._idle = True, 0
        elif self._optimizers and armed.has_pass:
            self._idle += 1
            if self._has_stepped and self._idle == _SOON:
                warn(f"statistics of a tooled model are missing: {self._replaced()}")

    @property
    def _patience(self) -> int:
        """The idle steps after which an optimizer seems to be replaced."""
        return min(max(_IDLE, 3 * self._pause), _SOON - 1)

    def _replaced(self) -> str:
        return (
            f"its optimizer took no step in {self._idle} measured steps; if another one was made "
            "since, watch the model with that one"
        )

    def _before_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._due():
            self._arm().weights.before_optimizer(optimizer, args, kwargs)

    def _after_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._armed is not None:
            self._armed.weights.after_optimizer(optimizer, args, kwargs)

    def _due(self) -> bool:
        return self._steps % self._every == 0

    def _trains(self, module: nn.Module) -> bool:
        """Whether a pass that begins now with a call of this module is a training pass."""
        asked = self._core if id(module) in self._roots else module
        return asked.training and torch.is_grad_enabled()

    def _check_replica(self, replica: nn.Module) -> None:
        if self._trains(replica) and any(is_replica_of(replica, module) for module in self._tree):
            raise _in_data_parallel()

    def _follow_layers(self) -> None:
        """Update the layers after modules were replaced in the model."""
        if all(_children(module) == children for module, children in self._tree.items()):
            return
        try:
            layers = choose_layers(self._core, self._wanted, self._name)
            _check_layers(self._model, layers)
        except DefinitionError as error:
            there = set(self._core.modules())
            layers = {name: layer for name, layer in self._layers.items() if layer in there}
            gone = listed(name for name in self._layers if name not in layers)
            if gone:
                warn(
                    f"layers of a tooled model are no longer in it, and left out: {gone} ({error})"
                )
            else:
                warn(f"layers of a tooled model keep names that they no longer have: {error}")
        else:
            self._tell_removed(layers)
        for name in self._streams.keys() - {
            n for n, m in layers.items() if self._layers.get(n) is m
        }:
            del self._streams[name]
        self._set_layers(layers)

    def _tell_removed(self, layers: Mapping[str, nn.Module]) -> None:
        """Warn, once for each name, of layers in whose place nothing is measured any more."""
        there = {*layers, *(before for name in layers for before in _blocks_of(name))}
        gone = [
            name
            for name in self._layers
            if not (
                name in there or name in self._gone or any(b in layers for b in _blocks_of(name))
            )
        ]
        self._gone.update(gone)
        if gone:
            warn(f"layers of a tooled model are no longer in it, and left out: {listed(gone)}")

    def _needs_streams(self) -> bool:
        return not all(statistic.measure for statistic in self._plan.get("grad_weights", ()))

    def _feed_streams(self, armed: ArmedStep) -> None:
        """Add the minibatch's gradients to the layers' streams, if a statistic needs them."""
        if not self._needs_streams():
            return
        for layer in self._layers:
            with self._failures.leaving_out(layer, "grad_weights"):
                gradients = armed.weights.gradients(layer)
                if gradients:
                    stream = self._streams.setdefault(layer, GradientStream())
                    stream.add(gradients, finite=self._scaler is not None)

    def _collect(self, armed: ArmedStep) -> dict[str, Number | Later]:
        partials = armed.partials()
        self._had_gradients |= any(p.grad is not None for p in self._core.parameters())
        values: dict[str, Number | Later] = {**armed.weights.rates}
        if armed.costs is not None:
            values |= armed.costs.values()
        for (layer, source), statistics in self._keys.items():
            measured = partials.get((layer, source), {})
            for key, statistic in statistics:
                measure = statistic.measure
                found = measured.get(measure) if measure else self._streams.get(layer)
                if found is None:
                    continue
                with self._failures.leaving_out(key):
                    value = statistic.read(found)
                    if statistic.per_weight:
                        weights = partials.get((layer, "weights"), {})
                        if MOMENTS not in weights:  # the weights are no longer the layer's own
                            continue
                        value = ratio(value, norm(weights[MOMENTS]))
                    values[key] = value
        if not self._had_updates:
            updates = [value for key, value in values.items() if "/updates/" in key]
            self._measured_updates |= bool(updates)
            # A tensor's value cannot be checked without waiting for the device.
            self._had_updates = any(not isinstance(v, float) or v != 0 for v in updates)
        return values

    def _settled(self, values: Mapping[str, Number | Later]) -> dict[str, Result]:
        """Convert CPU tensors to floats and arrays; copy a device's 0-d tensors into a single one,
        and return views of it."""
        settled: dict[str, Result] = {}
        devices: dict[torch.device, dict[torch.dtype, dict[str, Tensor]]] = {}
        for key, value in values.items():
            settled[key] = value
            if not isinstance(value, Tensor):
                continue
            if value.is_cpu:
                settled[key] = value.item() if value.dim() == 0 else value.numpy()
            elif value.dim() == 0:
                devices.setdefault(value.device, {}).setdefault(value.dtype, {})[key] = value
        for device, kinds in devices.items():
            wide = torch.float32 if device.type == "mps" else torch.float64
            stacked = [torch.stack(list(kind.values())).to(wide) for kind in kinds.values()]
            keys = (key for kind in kinds.values() for key in kind)
            settled.update(zip(keys, torch.cat(stacked).unbind(), strict=True))
        return settled


def _removed() -> TooledModel:
    tooled = TooledModel(nn.Identity())
    tooled.remove()
    return tooled


def _fetched(values: Mapping[str, Result]) -> dict[str, float | Array]:
    """Fetch values to the CPU, the 0-d tensors of each device in one copy."""
    fetched: dict[str, float | Array] = {}
    groups: dict[torch.device, dict[str, Tensor]] = {}
    for key, value in values.items():
        if not isinstance(value, Tensor):
            fetched[key] = float(value) if isinstance(value, Later) else value
        elif value.dim():
            fetched[key] = value.cpu().numpy()
        else:
            fetched[key] = 0.0  # keeps the order
            groups.setdefault(value.device, {})[key] = value
    for tensors in groups.values():
        fetched.update(zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True))
    return fetched


# ---------------------------------------------------------------- layers by name


def _children(module: nn.Module) -> tuple[tuple[str, nn.Module | None], ...]:
    return tuple(module._modules.items())


def _wrappers(model: nn.Module) -> frozenset[int]:
    """The ids of the model's wrappers and of the model inside them."""
    core = unwrapped(model)
    found = [model]
    while found[-1] is not core:
        found += found[-1].children()
    return frozenset(map(id, found))


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside wrappers such as those of torch.compile and DistributedDataParallel."""
    if not isinstance(model, nn.Module):
        raise DefinitionError(f"a model is a torch.nn.Module, got {type(model).__name__}")
    children = dict(model.named_children())
    if children.keys() not in ({COMPILED}, {"module"}) or any(model.parameters(recurse=False)):
        return model
    return unwrapped(children.popitem()[1])


def _named(model: nn.Module) -> dict[str, nn.Module]:
    """All modules by path, without the parts of the path added by torch.compile."""
    modules = {
        ".".join(part for part in path.split(".") if part != COMPILED): module
        for path, module in model.named_modules()
    }
    name = type(model).__name__
    while name in modules:
        name += "_"
    return {path or name: module for path, module in modules.items()}


def choose_layers(model: nn.Module, wanted: Layers, name: str = "") -> dict[str, nn.Module]:
    """Choose layers, in the model's order; `name` becomes the prefix of their names."""
    if "/" in name:
        raise DefinitionError(f"a model's name has no slash, as its keys have; got {name!r}")
    modules = _named(model)
    layers = [
        layer
        for layer, module in modules.items()
        if not any(True for _ in module.children())
        or any(True for _ in module.parameters(recurse=False))
    ]
    if wanted is None:
        chosen = set(layers)
    elif callable(wanted):
        chosen = {layer for layer in layers if wanted(layer, modules[layer])}
    else:
        chosen = set()
        for pattern in [wanted] if isinstance(wanted, str) else wanted:
            found = {layer for layer in layers if fnmatchcase(layer, str(pattern))}
            if pattern in modules:
                found.add(pattern)
            if not found:
                raise DefinitionError(
                    f"no layer {pattern!r}{nearest(str(pattern), modules)} "
                    "(TooledModel(model).layers lists them)"
                )
            chosen |= found
    if not chosen:
        raise DefinitionError("layers chooses none of the model's layers")
    before = f"{name}." if name else ""
    return {f"{before}{layer}": modules[layer] for layer in modules if layer in chosen}


def _check_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    if any(isinstance(module, nn.DataParallel) for module in model.modules()):
        raise _in_data_parallel()
    for name, module in {"the model": model, **layers}.items():
        if isinstance(module, torch.jit.ScriptModule):
            raise DefinitionError(
                f"{name} is a ScriptModule, whose parts cannot be seen; tool the model that it was "
                "made from, or leave it out with layers="
            )


def _in_data_parallel() -> DefinitionError:
    return DefinitionError(
        "a model in DataParallel cannot be tooled, its replicas live for one pass; "
        "use DistributedDataParallel, or one device"
    )


def _blocks_of(layer: str) -> list[str]:
    """The names of the blocks that a layer is in: `a` and `a.b` for `a.b.c`."""
    parts = layer.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]
