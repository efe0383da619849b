"""Hooks of optimizers that reference their owner weakly and never disturb training."""

import contextlib
import weakref
from typing import Any

from torch.compiler import is_compiling


class Hook:
    """Calls a method of its owner while that exists; copies and pickles of it do nothing."""

    def __init__(self, method: Any) -> None:
        self._owner = weakref.ref(method.__self__)
        self._function = method.__func__

    def __call__(self, *args: Any) -> None:
        owner = None if is_compiling() else self._owner()
        if owner is not None:
            try:
                self._function(owner, *args)
            except Exception as error:  # noqa: BLE001 - errors here must not stop training
                owner.fail("an optimizer", error)

    def __reduce__(self) -> tuple[Any, ...]:
        # A callable of the standard library that takes anything and returns None: an optimizer
        # that pickles all its attributes, as torch's do not, loads where flexrec is not installed.
        return getattr, (contextlib.nullcontext(), "__exit__")


def error_line(error: Exception) -> str:
    """An error in one line; the error itself would keep its traceback's objects alive."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]:.200}" if said else type(error).__name__
