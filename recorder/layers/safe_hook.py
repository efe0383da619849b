"""A module hook that lets training go on, whatever happens in it, and where it must keep still."""

import contextlib
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch.compiler import is_compiling

from flexrec.recorder.errors import DefinitionError

NO_KEYWORDS: Mapping[str, Any] = {}


class Hook:
    """A module hook that holds its owner weakly, and copies and pickles to one that does nothing.

    Attributes:
        traced: torch.compile has seen it, so the model was compiled with the hook inside.
    """

    def __init__(self, method: Any) -> None:
        self._owner = weakref.ref(method.__self__)
        self._function = method.__func__
        self.traced = False

    def __call__(self, *args: Any) -> None:
        if is_compiling():
            self.traced = not _is_exporting()
            return
        owner = self._owner()
        if owner is not None:
            try:
                self._function(owner, *args)
            except DefinitionError:  # what the caller asked for cannot be
                raise
            except Exception as error:  # noqa: BLE001 - training goes on, whatever happens here
                owner.fail(error)

    def __reduce__(self) -> tuple[Any, ...]:
        # A callable of the standard library that takes anything and returns None: a model that
        # was saved with its hooks loads where flexrec is not installed.
        return getattr, (contextlib.nullcontext(), "__exit__")


def error_line(error: Exception) -> str:
    """An error in one line; the error itself would hold on to much."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]:.200}" if said else type(error).__name__


def _is_exporting() -> bool:
    """Whether it is torch.export that compiles."""
    asked = getattr(torch.compiler, "is_exporting", None)  # torch 2.7
    return bool(asked and asked())
