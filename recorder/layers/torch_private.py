"""What flexrec uses of torch that torch does not promise to keep: all of it is here.

Each function says what it reads; tests/recorder/layers tries them on real models.
"""

import contextlib
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.optim import Optimizer


def in_backward() -> bool:
    """Whether this thread is in a backward pass: a forward pass there is a recomputation."""
    return torch._C._current_graph_task_id() != -1


def in_transform() -> bool:
    """Whether torch.jit.trace or a torch.func transform is at work: tensors have no values."""
    return torch._C._is_tracing() or torch._C._are_functorch_transforms_active()


def hidden_from_modes() -> contextlib.AbstractContextManager[Any]:
    """Hide what is done from modes that look at every operation, such as selective checkpointing:
    they would take it for the model's."""
    from torch.utils._python_dispatch import _disable_current_modes

    hidden: contextlib.AbstractContextManager[Any] = _disable_current_modes()
    return hidden


def dispatch_modes_are_active() -> bool:
    """Whether a TorchDispatchMode looks at every operation now."""
    return bool(torch._C._len_torch_dispatch_stack())


_CALL = "_compiled_call_impl"
"""What torch asks of every module before it calls it; `module.compile()` sets it."""


class CallSlot:
    """Answers, while it is open, what torch asks of every module before it calls it.

    It is in the class nn.Module, in the place of an attribute that is None there; what
    `module.compile()` sets is kept in the module, as ever. Compiled code never asks.

    Args:
        call_of: gives what is called in the place of a module, or None for the module itself.
    """

    def __init__(self, call_of: Callable[[nn.Module], Callable[..., Any] | None]) -> None:
        self._call_of = call_of

    def open(self) -> None:
        """Begin to answer."""
        if vars(nn.Module)[_CALL] is not self:
            setattr(nn.Module, _CALL, self)

    def close(self) -> None:
        """Leave torch as it was."""
        if vars(nn.Module)[_CALL] is self:
            setattr(nn.Module, _CALL, None)

    def __get__(self, module: nn.Module | None, owner: object = None) -> Any:
        if module is None:
            return None
        if is_compiling() or _compiled_code_runs():
            return vars(module).get(_CALL)
        return self._call_of(module) or vars(module).get(_CALL)

    def __set__(self, module: nn.Module, value: Any) -> None:
        vars(module)[_CALL] = value

    def __delete__(self, module: nn.Module) -> None:
        del vars(module)[_CALL]


_compiled_code_runs: Callable[[], Any] = getattr(
    torch._C._dynamo.eval_frame, "get_eval_frame_callback", lambda: None
)


def own_call(module: nn.Module) -> Callable[..., Any]:
    """What torch calls where nothing is in the slot."""
    call: Callable[..., Any] = vars(module).get(_CALL) or module._call_impl
    return call


def compiled_inside(module: nn.Module) -> nn.Module | None:
    """The module that torch.compile made this one of; None: it is none of those."""
    modules = vars(module).get("_modules")
    return modules.get(COMPILED) if isinstance(modules, dict) else None  # a ScriptModule has others


def add_gradient_hook(tensor: Tensor, hook: Callable[[Tensor], None]) -> Callable[[], Any]:
    """What `register_hook` does without a handle; gives what takes the hook off.

    Handles are numbered through the process, and the numbers of a user's own hooks are in pickles.
    """
    if tensor._backward_hooks is None:
        tensor._backward_hooks = OrderedDict()
        if tensor.grad_fn is not None:
            tensor.grad_fn._register_hook_dict(tensor)
    return _added(tensor._backward_hooks, hook)


def add_accumulated_hook(parameter: Tensor, hook: Callable[[Tensor], None]) -> Callable[[], Any]:
    """What `register_post_accumulate_grad_hook` does, as `add_gradient_hook`."""
    hooks: Any = parameter._post_accumulate_grad_hooks
    if hooks is None:
        hooks = parameter._post_accumulate_grad_hooks = OrderedDict()
    return _added(hooks, hook)


def add_step_hooks(
    optimizer: Optimizer, before: Callable[..., None], after: Callable[..., None]
) -> Callable[[], Any]:
    """What `register_step_pre_hook` and `register_step_post_hook` do, as `add_gradient_hook`."""
    first = _added(optimizer._optimizer_step_pre_hooks, before)
    second = _added(optimizer._optimizer_step_post_hooks, after)
    return lambda: (first(), second())


def _added(hooks: dict[Any, Any], hook: Callable[..., None]) -> Callable[[], Any]:
    key = id(hook)
    hooks[key] = hook
    return lambda: hooks.pop(key, None)


def is_replica(module: nn.Module) -> bool:
    """Whether it is one of the copies that DataParallel makes for a step."""
    return "_is_replica" in vars(module)


def is_replica_of(module: nn.Module, original: nn.Module) -> bool:
    """Whether it is a copy of this one: they share their tables of hooks."""
    return module._forward_hooks is original._forward_hooks


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


def notes_of(node: Any) -> dict[str, Any]:
    """What can be noted at a node of the graph of gradients; torch's stubs take it for a method."""
    notes: dict[str, Any] = node.metadata
    return notes
