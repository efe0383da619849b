"""Find the dimension of a layer's output that counts its units (channels or features).

It is known for torch's own layers, and followed from them through elementwise operations. If it is
unknown, it is not guessed from the shape, except for vectors and matrices.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from flexrec.recorder.layers.torch_private import notes_of

DROPPED = -1
"""The output of a dropout layer, whose zeros are not dead units."""

_MARK = "flexrec.units"  # in a graph node's metadata
_MOST = 64  # most nodes to search


def _of(*kinds: str) -> dict[int, tuple[type[nn.Module], ...]]:
    """The 1-d, 2-d and 3-d variants of layers."""
    return {n: tuple(getattr(nn, f"{kind}{n}d") for kind in kinds) for n in (1, 2, 3)}


_IN_SPACE = _of(
    *("Conv", "ConvTranspose", "InstanceNorm"),
    *("MaxPool", "AvgPool", "LPPool", "AdaptiveMaxPool", "AdaptiveAvgPool", "MaxUnpool"),
)
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
        *("Clone", "ToCopy", "Maximum", "Minimum", "Addcmul", "MaskedFill", "Rrelu"),
    )
)  # elementwise: the output has the units of the input


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
    dimension = _of_class(module, output)
    if dimension is None:
        dimension = known(output)
    if dimension is None:
        dimension = _followed(module, args, output, known)
    if dimension is None and output.dim() < 3:
        dimension = output.dim() - 1
    return dimension if dimension is not None and dimension < output.dim() else None


def _of_class(module: nn.Module, output: Tensor) -> int | None:
    if isinstance(module, _LAST):
        return output.dim() - 1
    if isinstance(module, _SECOND):
        return 1
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and len(module.normalized_shape) == 1:
        return output.dim() - 1
    for n, kinds in _IN_SPACE.items():
        if isinstance(module, kinds):
            return output.dim() - n - 1
    return None


def _followed(
    module: nn.Module, args: Any, output: Tensor, known: Callable[[Tensor], int | None]
) -> int | None:
    """The dimension of the input, if the layer is one of torch's that keep its place."""
    home = type(module).__module__
    if not args or not isinstance(args[0], Tensor) or args[0].dim() != output.dim():
        return None
    if home in _RESIZING or (home in _ELEMENTWISE and args[0].shape == output.shape):
        dimension = known(args[0])
        if dimension is not None and args[0].shape[dimension] == output.shape[dimension]:
            return dimension
    return None


def mark(tensor: Tensor, dimension: int | None) -> None:
    """Note in a tensor's autograd graph which of its dimensions counts units."""
    if tensor.grad_fn is not None:
        notes_of(tensor.grad_fn)[_MARK] = (dimension, tensor.shape)


def marked(tensor: Tensor) -> int | None:
    """The dimension noted for a tensor, or for one that it was computed from elementwise."""
    found: set[int | None] = set()
    waiting, looked = [tensor.grad_fn], 0
    while waiting and looked < _MOST:
        node, looked = waiting.pop(), looked + 1
        if node is None:
            continue
        note = notes_of(node).get(_MARK)
        if note is not None:
            dimension, shape = note
            if shape == tensor.shape:
                found.add(dimension)
        elif node.name() in _FUNCTIONS:
            waiting += [before for before, _ in node.next_functions]
    return found.pop() if len(found) == 1 else None
