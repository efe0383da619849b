"""Observe calls of modules from outside, without putting anything into them, not even hooks.

So copies and pickles of an observed module are the same as without observation, and its hooks are
the user's only. This module keeps track of who observes which module; torch_private.py intercepts
the calls. Calls in compiled code are not seen, so such code can be run eagerly for a while.
"""

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn

from flexrec.recorder.errors import DefinitionError
from flexrec.recorder.layers.torch_private import (
    CallSlot,
    compiled_inside,
    has_compiled,
    is_replica,
    own_call,
)

Call: TypeAlias = Callable[..., Any]


class Step(Protocol):
    """Receives the calls of modules."""

    @property
    def depth(self) -> int:
        """The number of running calls."""

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Handle the start of a call."""

    def result(self, module: nn.Module, args: Any, output: Any) -> None:
        """Handle the output of a call."""

    def leave(self, depth: int) -> None:
        """Handle the end of a call, also by an exception; `depth` calls are still running."""


class Owner(Protocol):
    """The owner of an Observer."""

    def step_of(self, module: nn.Module) -> Step | None:
        """The step that receives a call that begins now; None if there is none."""

    def fail(self, what: str, error: Exception) -> None:
        """Handle an error."""


class Observer:
    """Observes the calls of some modules for an owner, which it references weakly.

    >>> observer = Observer(owner)
    >>> observer.observe(model.modules())
    >>> observer.close()
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = weakref.ref(owner)
        self._ids: list[int] = []
        weakref.finalize(owner, _forget, self, self._ids)

    def observe(self, modules: Iterable[nn.Module]) -> None:
        """Observe these modules and no others; they must exist until `close`."""
        self.close()
        for module in modules:
            others = _observers.get(id(module), ())
            if self not in others:
                _observers[id(module)] = (*others, self)
                self._ids.append(id(module))
        if _observers:
            _SLOT.open()

    def close(self) -> None:
        """Stop observing."""
        _forget(self, self._ids)

    def call(self, module: nn.Module, call: Call, /, *args: Any, **kwargs: Any) -> Any:
        """Call a module and report the call; errors in reporting do not stop training."""
        step = self._step_of(module)
        if step is None:
            return call(*args, **kwargs)
        depth = step.depth
        try:
            step.enter(module, args, kwargs)
            output = call(*args, **kwargs)
            step.result(module, args, output)
        finally:
            step.leave(depth)
        return output

    def _step_of(self, module: nn.Module) -> Step | None:
        owner = self._owner()
        try:
            return owner.step_of(module) if owner is not None else None
        except DefinitionError:  # the caller's request cannot be met
            raise
        except Exception as error:  # noqa: BLE001 - training goes on
            if owner is not None:
                owner.fail("all of a pass", error)
            return None


_observers: dict[int, tuple[Observer, ...]] = {}
"""Observers by the id of a module."""


def _forget(observer: Observer, ids: list[int]) -> None:
    for key in ids:
        left = tuple(other for other in _observers.get(key, ()) if other is not observer)
        if left:
            _observers[key] = left
        else:
            _observers.pop(key, None)
    ids.clear()
    if not _observers:
        _SLOT.close()


def _call_of(module: nn.Module) -> Call | None:
    """The observed call of a module; None if nobody observes it."""
    observers = _observers.get(id(module)) or _observers_inside(module)
    return partial(_observed, module, observers) if observers else None


def _observers_inside(module: nn.Module) -> tuple[Observer, ...]:
    """The observers of the module that torch.compile or DataParallel made `module` from."""
    inside = compiled_inside(module)
    if inside is not None:
        return _observers.get(id(inside), ())
    if is_replica(module):  # whose, their owners know
        return tuple({observer: None for seen in _observers.values() for observer in seen})
    return ()


def _observed(module: nn.Module, observers: tuple[Observer, ...], /, *args: Any, **kw: Any) -> Any:
    call = own_call(module)
    for observer in observers:
        call = partial(observer.call, module, call)
    return call(*args, **kw)


_SLOT = CallSlot(_call_of)


class EagerWhileObserved:
    """Runs torch.compile'd code eagerly until it is released, so that its calls are observed.

    Nothing is recompiled. The compiler stance is global to the process: the first holder sets it
    and the last one restores it, in whatever order the steps of several tooled models end. It also
    covers the backward pass, where checkpointed parts run again and must run the same code.
    """

    holders = 0
    _stance: Any = None

    def __init__(self) -> None:
        if not EagerWhileObserved.holders and has_compiled():
            EagerWhileObserved._stance = torch.compiler.set_stance("force_eager")
        EagerWhileObserved.holders += 1
        self._is_held = True

    def release(self) -> None:
        """Let compiled code run again; a second call does nothing."""
        if self._is_held:
            self._is_held = False
            EagerWhileObserved.holders -= 1
            if not EagerWhileObserved.holders and EagerWhileObserved._stance is not None:
                EagerWhileObserved._stance.__exit__(None, None, None)
                EagerWhileObserved._stance = None
