"""Calls of modules, seen from outside: nothing is put into a module, not even a hook.

So copies and pickles of a module that is observed are those of one that is not, and whatever asks
a module for its hooks finds the user's alone. Here is only who observes which module; how torch
is made to tell is in torch_private.py. Compiled code does not tell: it can be made to run as it is
written for a while.
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
    """What a call is told to."""

    @property
    def depth(self) -> int:
        """How many calls are under way."""

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A module is called."""

    def result(self, module: nn.Module, args: Any, output: Any) -> None:
        """The call has given this."""

    def leave(self, depth: int) -> None:
        """So many calls are still under way: one is over, by its end or by an exception."""


class Owner(Protocol):
    """Who observes."""

    def step_of(self, module: nn.Module) -> Step | None:
        """Whom to tell of a call that begins now; None: nobody."""

    def fail(self, what: str, error: Exception) -> None:
        """Something went wrong."""


class Observer:
    """Sees the calls of some modules for an owner, whom it does not keep alive.

    >>> observer = Observer(owner)
    >>> observer.observe(model.modules())
    >>> observer.close()
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = weakref.ref(owner)
        self._ids: list[int] = []
        weakref.finalize(owner, _forget, self, self._ids)

    def observe(self, modules: Iterable[nn.Module]) -> None:
        """See the calls of these modules and of no others; they must live until `close`."""
        self.close()
        for module in modules:
            others = _observers.get(id(module), ())
            if self not in others:
                _observers[id(module)] = (*others, self)
                self._ids.append(id(module))
        if _observers:
            _SLOT.open()

    def close(self) -> None:
        """See nothing more."""
        _forget(self, self._ids)

    def call(self, module: nn.Module, call: Call, /, *args: Any, **kwargs: Any) -> Any:
        """Make a call, and tell of it; training goes on, whatever happens to the telling."""
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
        except DefinitionError:  # what the caller asked for cannot be
            raise
        except Exception as error:  # noqa: BLE001 - training goes on
            if owner is not None:
                owner.fail("all of a pass", error)
            return None


_observers: dict[int, tuple[Observer, ...]] = {}
"""By the id of a module."""


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
    """The call of a module, as its observers see it; None: nobody observes it."""
    observers = _observers.get(id(module)) or _observers_inside(module)
    return partial(_observed, module, observers) if observers else None


def _observers_inside(module: nn.Module) -> tuple[Observer, ...]:
    """Of what torch.compile or DataParallel made of an observed module afterwards."""
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
    """Keeps compiled code running as written until it is released, so that its calls are seen.

    Nothing is recompiled. The stance is the whole process's, so the first holder sets it and
    the last one restores it, in whatever order steps of several tooled models end. It holds for
    the backward pass too: what is checkpointed runs again there, and must run the same.
    """

    holders = 0
    _stance: Any = None

    def __init__(self) -> None:
        if not EagerWhileObserved.holders and has_compiled():
            EagerWhileObserved._stance = torch.compiler.set_stance("force_eager")
        EagerWhileObserved.holders += 1
        self._is_held = True

    def release(self) -> None:
        """Compiled code may run again; a second call does nothing."""
        if self._is_held:
            self._is_held = False
            EagerWhileObserved.holders -= 1
            if not EagerWhileObserved.holders and EagerWhileObserved._stance is not None:
                EagerWhileObserved._stance.__exit__(None, None, None)
                EagerWhileObserved._stance = None
