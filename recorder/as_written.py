"""Compiled code that runs as it is written, for a while: hooks that are new to it fire there."""

import sys
from typing import Any

import torch

from flexrec.recorder.errors import DefinitionError

__all__ = ["AsWritten", "compiled_afterwards"]


def compiled_afterwards() -> DefinitionError:
    """What to say where the hook sits inside the compiled model."""
    return DefinitionError(
        "torch.compile was called on a model that TooledModel had hooks on, or as model.compile(); "
        "give TooledModel what torch.compile(model) returns"
    )


class AsWritten:
    """Keeps compiled code running as written until it is released, which is how new hooks fire.

    Nothing is recompiled. The stance is the whole process's, so the first holder sets it and
    the last one restores it, in whatever order steps of several tooled models end. It holds for
    the backward pass too: what is checkpointed runs again there, and must run the same.
    """

    holders = 0
    _stance: Any = None

    def __init__(self) -> None:
        set_stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6
        if not AsWritten.holders and set_stance and "torch._dynamo" in sys.modules:
            try:
                AsWritten._stance = set_stance("force_eager")
            except RuntimeError:  # refused inside compiled code
                raise compiled_afterwards() from None
        AsWritten.holders += 1
        self._is_held = True

    def release(self) -> None:
        """Compiled code may run again; a second call does nothing."""
        if self._is_held:
            self._is_held = False
            AsWritten.holders -= 1
            if not AsWritten.holders and AsWritten._stance is not None:
                AsWritten._stance.__exit__(None, None, None)
                AsWritten._stance = None
