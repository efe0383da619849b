"""Compiled code that runs as it is written, for a while: hooks that are new to it fire there."""

import sys
from typing import Any

import torch

from flexrec.recorder.errors import DefinitionError

__all__ = ["EAGER", "Held", "as_written", "compiled_afterwards"]


def compiled_afterwards() -> DefinitionError:
    """What to say where the hook sits inside the compiled model."""
    return DefinitionError(
        "torch.compile was called on a model that TooledModel had hooks on, or as model.compile(); "
        "give TooledModel what torch.compile(model) returns"
    )


class _Eager:
    """Keeps compiled code running as written, which is how hooks that are new to it fire.

    Nothing is recompiled. The stance is the whole process's, so the first holder sets it and
    the last one restores it, in whatever order steps of several tooled models end. It holds for
    the backward pass too: what is checkpointed runs again there, and must run the same.
    """

    def __init__(self) -> None:
        self._holders = 0
        self._stance: Any = None

    def hold(self) -> "Held":
        """Until it is released."""
        set_stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6
        if not self._holders and set_stance and "torch._dynamo" in sys.modules:
            try:
                self._stance = set_stance("force_eager")
            except RuntimeError:  # refused inside compiled code
                raise compiled_afterwards() from None
        self._holders += 1
        return Held()

    def let_go(self) -> None:
        """One holder less."""
        self._holders -= 1
        if not self._holders and self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None


EAGER = _Eager()


class Held:
    """One hold of `EAGER`, which ends once."""

    def __init__(self) -> None:
        self._is_held = True

    def release(self) -> None:
        """Compiled code may run again."""
        if self._is_held:
            self._is_held = False
            EAGER.let_go()


def as_written() -> "Held":
    """Have compiled code run as it is written, until what is given is released."""
    return EAGER.hold()
