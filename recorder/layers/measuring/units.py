"""Find the dimension of a layer's output that counts its units (channels or features).

It is known for torch's own layers, and followed from them through elementwise operations. If it is
unknown, it is not guessed from the shape, except for vectors and matrices. Where zeros may come
from dropout, the units are not counted.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from flexrec.recorder.layers.torch_private import is_scaling, notes_of

DROPPED = -1
"""An output whose zeros may come from dropout, so that they are not dead units."""

_MARK = "flexrec.units"  # in a graph node's metadata
_MOST = 64  # most nodes to search


def _of(*kinds: str) -> dict[int, tuple[type[nn.Module], ...]]:
    """The 1-d, 2-d and 3-d variants of layers."""
    return {n: tuple(getattr(nn, f"{kind}{n}d") for kind in kinds) for n in (1, 2, 3)}


_IN_SPACE = _of("Conv", "ConvTranspose", "InstanceNorm")
_POOLS = _of("MaxPool", "AvgPool", "LPPool", "AdaptiveMaxPool", "AdaptiveAvgPool", "MaxUnpool")
_SECOND = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm)
_LAST = (nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase)
_DROPPING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_RESIZING = ("torch.nn.modules.padding", "torch.nn.modules.upsampling")
_ELEMENTWISE = ("torch.nn.modules.activation", "torch.nn.modules.dropout")
_FUNCTIONS = frozenset(
    f"{name}Backward{n}"
    for n in (0, 1, 2)
    for name in (
        *("Add", "Sub", "Rsub", "Mul", "Div", "Neg", "Abs", "Pow", "Sqrt", "Exp", "Log", "Where"),
        *("Relu", "LeakyRelu", "Elu", "Celu", "Gelu", "Silu", "Mish", "Sigmoid", "Tanh", "Prelu"),
        *("Threshold", "Hardtanh", "Hardswish", "Hardsigmoid", "Softplus", "Clamp", "ClampMin"),
        *("Clone", "ToCopy", "Maximum", "Minimum", "Addcmul", "Rrelu"),
    )
)  # elementwise: the output has the units of the input
_MASKING = ("MaskedFill", "MaskedScatter", "IndexFill", "IndexPut")
_MIXING = (
    *("Addmm", "Mm", "Bmm", "Baddbmm", "Addbmm", "Addmv", "Mv", "Convolution", "Embedding"),
    *("NativeLayerNorm", "NativeBatchNorm", "NativeGroupNorm", "CudnnBatchNorm"),
    *("Softmax", "ScaledDotProduct"),
)  # the first words of the names of nodes whose outputs are not 0 where an input is dropped


def units_of(
    module: nn.Module, args: Any, output: Tensor, known: Callable[[Tensor], int | None]
) -> int | None:
    """The dimension of an output that counts units; None if unknown; or `DROPPED`.

    Args:
        module: the layer.
        args: its arguments.
        output: a tensor of its output.
        known: returns the dimension found before for a tensor.
    """
    if isinstance(module, _DROPPING) and module.training and module.p > 0:
        return DROPPED
    dimension = _of_mixing(module, output)
    if dimension is None:
        dimension = _of_kept(module, args, output, known)
    return dimension if dimension is not None and dimension < output.dim() else None


def _of_mixing(module: nn.Module, output: Tensor) -> int | None:
    """The dimension in the output of a layer that is not 0 where its input is dropped."""
    if isinstance(module, _LAST) or _is_norm(module, nn.LayerNorm):
        return output.dim() - 1
    if isinstance(module, _SECOND):
        return 1
    return _before_space(module, _IN_SPACE, output)


def _of_kept(
    module: nn.Module, args: Any, output: Tensor, known: Callable[[Tensor], int | None]
) -> int | None:
    """The dimension in the output of a layer that may keep the zeros of its input."""
    found = known(output)
    before = args[0] if args and isinstance(args[0], Tensor) else None
    of_input = known(before) if before is not None and found is None else None
    if DROPPED in (found, of_input):
        return DROPPED
    if found is None and of_input is None and output.grad_fn is None:
        return None  # no graph says where the input came from
    if _is_norm(module, nn.RMSNorm):
        return output.dim() - 1
    dimension = _before_space(module, _POOLS, output)
    if dimension is None:
        dimension = found
    if dimension is None and before is not None and of_input is not None:
        dimension = _followed(module, before, output, of_input)
    if dimension is None and output.dim() < 3:
        dimension = output.dim() - 1
    return dimension


def _is_norm(module: nn.Module, kind: type[nn.LayerNorm | nn.RMSNorm]) -> bool:
    """Whether a module is a norm of this kind over the last dimension."""
    return isinstance(module, kind) and len(module.normalized_shape) == 1


def _before_space(
    module: nn.Module, kinds: dict[int, tuple[type[nn.Module], ...]], output: Tensor
) -> int | None:
    """The dimension before those of space, if the module is of one of these kinds."""
    return next((output.dim() - n - 1 for n, of in kinds.items() if isinstance(module, of)), None)


def _followed(module: nn.Module, before: Tensor, output: Tensor, dimension: int) -> int | None:
    """The dimension of the input, if the layer is one of torch's that keep its place."""
    home = type(module).__module__
    keeps = home in _RESIZING or (home in _ELEMENTWISE and before.shape == output.shape)
    if not keeps or before.dim() != output.dim():
        return None
    return dimension if before.shape[dimension] == output.shape[dimension] else None


def mark(tensor: Tensor, dimension: int | None) -> None:
    """Note in a tensor's autograd graph which of its dimensions counts units."""
    if tensor.grad_fn is not None:
        notes_of(tensor.grad_fn)[_MARK] = (dimension, tensor.shape)


def marked(tensor: Tensor) -> int | None:
    """The dimension noted for a tensor, or for those that it was computed from elementwise.

    It is `DROPPED` if zeros of the tensor may come from a dropout layer or from a function that
    drops, and if the graph is too large to tell.
    """
    found: set[int | None] = set()
    waiting, looked = [(tensor.grad_fn, True)], set[tuple[Any, bool]]()
    while waiting:
        node, elementwise = waiting.pop()
        if node is None or (node, elementwise) in looked:
            continue
        looked.add((node, elementwise))
        dimension, shape = notes_of(node).get(_MARK, (None, None))
        name = node.name()
        if dimension == DROPPED or _drops(node, name) or len(looked) > _MOST:
            return DROPPED
        if shape is None and not name.startswith(_MIXING):
            elementwise = elementwise and name in _FUNCTIONS
            waiting += [(before, elementwise) for before, _ in node.next_functions]
        elif elementwise and shape == tensor.shape:
            found.add(dimension)
    return found.pop() if len(found) == 1 else None


def _drops(node: Any, name: str) -> bool:
    """Whether the operation of a graph's node may be dropout, or a part of it."""
    if name.startswith(("MulBackward", "WhereBackward")):
        return any(before is None for before, _ in node.next_functions) and not is_scaling(node)
    return "Dropout" in name or name.startswith(_MASKING)
