"""All uses of torch's private names, which may change between versions of torch.

Each function says what it reads; tests/recorder/layers tests them on real models.
"""

import contextlib
import itertools
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


def in_backward() -> bool:
    """Whether this thread is in a backward pass, where a forward pass is a recomputation."""
    return torch._C._current_graph_task_id() != -1


def in_transform() -> bool:
    """Whether torch.jit.trace or a torch.func transform is running; tensors have no values then."""
    return torch._C._is_tracing() or torch._C._are_functorch_transforms_active()


def hidden_from_modes() -> contextlib.AbstractContextManager[Any]:
    """Hide operations from dispatch modes such as selective checkpointing, which would take them
    for the model's operations."""
    from torch.utils._python_dispatch import _disable_current_modes

    hidden: contextlib.AbstractContextManager[Any] = _disable_current_modes()
    return hidden


def dispatch_modes_are_active() -> bool:
    """Whether a TorchDispatchMode is active."""
    return bool(torch._C._len_torch_dispatch_stack())


_CALL = "_compiled_call_impl"
"""The attribute that torch reads before it calls a module; `module.compile()` sets it."""


class CallSlot:
    """Intercepts module calls while open, through an attribute that torch reads before each call.

    It replaces an attribute of the class nn.Module that is None there. `module.compile()` still
    sets the attribute on the module itself. Compiled code does not read it.

    Args:
        call_of: returns what to call instead of a module, or None for the module itself.
    """

    def __init__(self, call_of: Callable[[nn.Module], Callable[..., Any] | None]) -> None:
        self._call_of = call_of

    def open(self) -> None:
        """Start intercepting."""
        if vars(nn.Module)[_CALL] is not self:
            setattr(nn.Module, _CALL, self)

    def close(self) -> None:
        """Restore torch's attribute."""
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
    """The function that torch calls if the slot is empty."""
    call: Callable[..., Any] = vars(module).get(_CALL) or module._call_impl
    return call


def compiled_inside(module: nn.Module) -> nn.Module | None:
    """The module inside torch.compile's wrapper; None if `module` is not such a wrapper."""
    modules = vars(module).get("_modules")
    return modules.get(COMPILED) if isinstance(modules, dict) else None  # not in a ScriptModule


def add_gradient_hook(tensor: Tensor, hook: Callable[[Tensor], None]) -> Callable[[], Any]:
    """Add a hook as `register_hook` does, but without a handle; returns a function to remove it.

    Handles are numbered globally, and the numbers of the user's own hooks are saved in pickles.
    """
    if tensor._backward_hooks is None:
        tensor._backward_hooks = OrderedDict()
        if tensor.grad_fn is not None:
            tensor.grad_fn._register_hook_dict(tensor)
    return _added(tensor._backward_hooks, hook)


def next_sequence_number() -> int:
    """The number of the next node that this thread adds to the autograd graph."""
    return int(torch._C._autograd._get_sequence_nr())


def nodes_since(tensors: Iterable[Tensor], first: int) -> dict[int, Any]:
    """The nodes that tensors were computed by, from number `first` on, by their numbers.

    Nodes that accumulate gradients have no number and are left out.
    """
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors]
    found: dict[int, Any] = {}
    while waiting:
        node = waiting.pop()
        number = -1 if node is None else node._sequence_nr()
        if first <= number < _UNNUMBERED and number not in found:
            found[number] = node
            waiting += (inner for inner, _ in node.next_functions)
    return found


_UNNUMBERED = 1 << 62


_NODE_HOOKS = itertools.count(1 << 62, 2)


def add_node_hooks(
    node: Any, before: Callable[[Any], None], after: Callable[[Any, Any], None]
) -> None:
    """Call functions before and after a node of the autograd graph runs, as long as it exists.

    The global number of handles is put back, as for `add_gradient_hook`. The hooks have numbers of
    their own: of several with the same number a node keeps the last.
    """
    number, RemovableHandle.next_id = RemovableHandle.next_id, next(_NODE_HOOKS)
    node.register_prehook(before)
    node.register_hook(after)
    RemovableHandle.next_id = number


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


def wrapped_optimizer(optimizer: Optimizer) -> Optimizer:
    """The optimizer in a wrapper that has no hooks of its own; other optimizers unchanged."""
    inner = getattr(optimizer, "optimizer", None)
    if not isinstance(inner, Optimizer):
        return optimizer
    own = vars(optimizer).get("_optimizer_step_pre_hooks")
    is_wrapper = own is None or own is vars(inner).get("_optimizer_step_pre_hooks")
    return wrapped_optimizer(inner) if is_wrapper else optimizer


def fused_scale(optimizer: Optimizer) -> Tensor | None:
    """The scale by which the step that runs now divides gradients; a GradScaler sets it."""
    takes_scale = getattr(optimizer, "_step_supports_amp_scaling", False)
    scale = getattr(optimizer, "grad_scale", None) if takes_scale else None
    return scale if isinstance(scale, Tensor) else None


def _added(hooks: dict[Any, Any], hook: Callable[..., None]) -> Callable[[], Any]:
    key = id(hook)
    hooks[key] = hook
    return lambda: hooks.pop(key, None)


def is_replica(module: nn.Module) -> bool:
    """Whether a module is one of the copies that DataParallel makes for a step."""
    return "_is_replica" in vars(module)


def is_replica_of(module: nn.Module, original: nn.Module) -> bool:
    """Whether a replica is a copy of `original`; they share their tables of hooks."""
    return module._forward_hooks is original._forward_hooks


def has_compiled() -> bool:
    """Whether torch.compile was used in this process, which loads its modules."""
    return "torch._dynamo" in sys.modules


COMPILED = "_orig_mod"
"""The name of the inner module in torch.compile's wrapper."""


def scaler_states(scaler: object) -> Any:
    """A GradScaler's table of states by optimizer; `update` replaces it by a new one."""
    return getattr(scaler, "_per_optimizer_states", None)


def scale_version(scaler: object) -> int | None:
    """The number of in-place changes of a GradScaler's scale; None before its first use."""
    scale = getattr(scaler, "_scale", None)
    return scale._version if isinstance(scale, Tensor) else None


def notes_of(node: Any) -> dict[str, Any]:
    """The metadata of a node of the autograd graph; torch's stubs declare it as a method."""
    notes: dict[str, Any] = node.metadata
    return notes


def is_scaling(node: Any) -> bool:
    """Whether a node of the autograd graph with an input without gradient multiplies by a number.

    False also if it cannot be read without running hooks of saved tensors, which may be slow or
    compute a checkpointed part again.
    """
    of_first = node.next_functions[0][0] is not None
    saved = getattr(node, "_raw_saved_other" if of_first else "_raw_saved_self", None)
    factor = getattr(saved, "data", None)
    return isinstance(factor, Tensor) and factor.dim() == 0
