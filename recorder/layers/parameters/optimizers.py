"""Optimizers: their names and learning rates, and hooks that never disturb training."""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.optim import Optimizer

from flexrec.recorder.errors import DefinitionError
from flexrec.recorder.layers.measuring.measures import Number, item
from flexrec.recorder.layers.torch_private import add_step_hooks, wrapped_optimizer

Optimizers: TypeAlias = Optimizer | Iterable[Optimizer] | None
"""One optimizer, several, or none."""


def named(optimizers: Optimizers, model: str = "") -> dict[Optimizer, str]:
    """The name of each optimizer: `optimizer`, `optimizer1` and so on, after the model's name.

    Of an optimizer in a wrapper, such as Accelerate's and Lightning's, it is the one inside, whose
    step is the real one.

    Raises:
        DefinitionError: something is no optimizer.
    """
    found: dict[Optimizer, str] = {}
    before = f"{model}." if model else ""
    for optimizer in _listed(optimizers):
        if not isinstance(optimizer, Optimizer):
            raise DefinitionError(
                "optimizer= takes a torch.optim.Optimizer, or a list of them, "
                f"got {type(optimizer).__name__}"
            )
        found.setdefault(wrapped_optimizer(optimizer), f"{before}optimizer{len(found) or ''}")
    return found


def _listed(optimizers: Any) -> Iterable[Any]:
    """What was given, as several; a single object that is no optimizer need not be iterable."""
    if optimizers is None:
        return ()
    if isinstance(optimizers, Iterable) and not isinstance(optimizers, (Optimizer, str)):
        return optimizers
    return (optimizers,)


def rates(optimizer: Optimizer, name: str) -> dict[str, Number]:
    """The learning rate of each parameter group, by key; an accelerator's are copied there."""
    found: dict[str, Number] = {}
    for number, group in enumerate(optimizer.param_groups):
        rate = group.get("lr")
        if isinstance(rate, Tensor) and rate.numel() == 1:
            found[f"{name}/group{number}/lr"] = item(rate.detach().reshape(()).clone())
        elif isinstance(rate, (int, float)):
            found[f"{name}/group{number}/lr"] = float(rate)
    return found


def parameters_of(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    """The parameters that an optimizer holds now."""
    for group in optimizer.param_groups:
        yield from group["params"]


def has_closure(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a step with these arguments computes the gradients itself; the first is `self`."""
    return any(callable(value) for value in (*args[1:], *kwargs.values()))


def add_hooks(
    optimizers: Iterable[Optimizer], before: Callable[..., None], after: Callable[..., None]
) -> Callable[[], None]:
    """Call methods before and after each step of optimizers; returns a function to stop that.

    The methods get the optimizer, the arguments of its step and the keyword arguments. Their owner
    is referenced weakly; its `fail` is called if they fail.
    """
    hooks = contextlib.ExitStack()
    for optimizer in optimizers:
        hooks.callback(add_step_hooks(optimizer, _Hook(before), _Hook(after)))
    return hooks.close


def _is_captured() -> bool:
    """Whether a CUDA graph is being captured: operations run later, and not from Python."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


class _Hook:
    """Calls a method of its owner while that exists; copies and pickles of it do nothing."""

    def __init__(self, method: Any) -> None:
        self._owner = weakref.ref(method.__self__)
        self._function = method.__func__

    def __call__(self, *args: Any) -> None:
        owner = None if is_compiling() or _is_captured() else self._owner()
        if owner is None:
            return
        try:
            self._function(owner, *args)
        except DefinitionError:  # the caller's request cannot be met
            raise
        except Exception as error:  # noqa: BLE001 - errors here must not stop training
            owner.fail("an optimizer", error)

    def __reduce__(self) -> tuple[Any, ...]:
        # A callable of the standard library that takes anything and returns None: an optimizer
        # that pickles all its attributes, as torch's do not, loads where flexrec is not installed.
        return getattr, (contextlib.nullcontext(), "__exit__")
