"""Compiled code that runs as it is written, for a while: hooks that are new to it fire there."""

from typing import Any

import torch

from flexrec.recorder.errors import DefinitionError
from flexrec.recorder.layers.torch_private import has_compiled


def compiled_afterwards() -> DefinitionError:
    """What to say where the hook sits inside the compiled model."""
    return DefinitionError(
        "torch.compile was called on a model that TooledModel had hooks on, or as model.compile(); "
        "give TooledModel what torch.compile(model) returns"
    )


class EagerWhileHooked:
    """Keeps compiled code running as written until it is released, which is how new hooks fire.

    Nothing is recompiled. The stance is the whole process's, so the first holder sets it and
    the last one restores it, in whatever order steps of several tooled models end. It holds for
    the backward pass too: what is checkpointed runs again there, and must run the same.
    """

    holders = 0
    _stance: Any = None

    def __init__(self) -> None:
        set_stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6
        if not EagerWhileHooked.holders and set_stance and has_compiled():
            try:
                EagerWhileHooked._stance = set_stance("force_eager")
            except RuntimeError:  # refused inside compiled code
                raise compiled_afterwards() from None
        EagerWhileHooked.holders += 1
        self._is_held = True

    def release(self) -> None:
        """Compiled code may run again; a second call does nothing."""
        if self._is_held:
            self._is_held = False
            EagerWhileHooked.holders -= 1
            if not EagerWhileHooked.holders and EagerWhileHooked._stance is not None:
                EagerWhileHooked._stance.__exit__(None, None, None)
                EagerWhileHooked._stance = None
