"""What flexrec uses of torch that torch does not promise to keep: all of it is here.

Each function says what it reads; tests/recorder/layers tries them on real models.
"""

import contextlib
import sys
from typing import Any

import torch
from torch import Tensor, nn


def in_backward() -> bool:
    """Whether this thread is in a backward pass: a forward pass there is a recomputation."""
    return torch._C._current_graph_task_id() != -1


def in_transform() -> bool:
    """Whether torch.jit.trace or a torch.func transform is at work: tensors have no values."""
    return torch._C._is_tracing() or torch._C._are_functorch_transforms_active()


MODULE_CALL = nn.Module._call_impl.__code__


def hidden_from_modes() -> contextlib.AbstractContextManager[Any]:
    """Hide what is done from modes that look at every operation, such as selective checkpointing:
    they would take it for the model's."""
    from torch.utils._python_dispatch import _disable_current_modes

    hidden: contextlib.AbstractContextManager[Any] = _disable_current_modes()
    return hidden


def dispatch_modes_are_active() -> bool:
    """Whether a TorchDispatchMode looks at every operation now."""
    return bool(torch._C._len_torch_dispatch_stack())


def forward_pre_hooks(module: nn.Module) -> dict[int, Any]:
    """A module's table of hooks that run before it."""
    return module._forward_pre_hooks


def forward_pre_hooks_with_kwargs(module: nn.Module) -> dict[int, Any]:
    """Which hooks of that table take keyword arguments."""
    return module._forward_pre_hooks_with_kwargs


def forward_hooks(module: nn.Module) -> dict[int, Any]:
    """A module's table of hooks that run after it."""
    return module._forward_hooks


def is_replica(module: nn.Module) -> bool:
    """Whether it is one of the copies that DataParallel makes for a step."""
    return "_is_replica" in vars(module)


def has_compiled() -> bool:
    """Whether torch.compile was used in this process; its modules are not loaded before."""
    return "torch._dynamo" in sys.modules


COMPILED = "_orig_mod"
"""What torch.compile's wrapper calls the module inside it."""


def scaler_states(scaler: object) -> Any:
    """What a GradScaler notes by optimizer; `update` puts a new table in its place."""
    return getattr(scaler, "_per_optimizer_states", None)


def scale_version(scaler: object) -> int | None:
    """How often a GradScaler's scale was changed in place; None before its first use."""
    scale = getattr(scaler, "_scale", None)
    return scale._version if isinstance(scale, Tensor) else None
