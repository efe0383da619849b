"""Compute a model's activations on a probe batch: the output of each layer.

This takes one pass in evaluation mode, without gradients; the model is left unchanged.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flexrec.recorder.errors import InputError
from flexrec.recorder.layers.calls import EagerWhileObserved
from flexrec.recorder.layers.measuring.measures import local
from flexrec.recorder.layers.models import Models
from flexrec.recorder.layers.parameters.weights import weights_of
from flexrec.recorder.layers.table import describe
from flexrec.recorder.layers.tooled_model import Layers, choose_layers, unwrapped


class Activation(NamedTuple):
    """The output of a layer, as a tensor (samples, units), and the layer."""

    rows: Tensor
    layer: nn.Module


def activations(
    model: nn.Module, inputs: Any, layers: Layers = None, name: str = ""
) -> dict[str, Activation]:
    """The output of each layer for `inputs`.

    >>> model = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
    >>> {name: tuple(of.rows.shape) for name, of in activations(model, torch.zeros(4, 3)).items()}
    {'0': (4, 5), '1': (4, 5)}

    Args:
        model: any module; its modes and the random state are restored afterwards.
        inputs: the model's input: one tensor, a tuple of arguments, or a dict of keyword
            arguments.
        layers: the layers to use, as in TooledModel. For a layer that is called several times,
            the last output is used; one whose output is not a floating tensor is left out.
        name: the model's name, as in TooledModel.

    Raises:
        DefinitionError: there is no such layer.
        InputError: no layer has a floating tensor as its output.
    """
    chosen = choose_layers(unwrapped(model), layers, name)
    found: dict[str, Activation] = {}

    def keep(layer: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and output.ndim:
                rows = local(output.detach()).clone()  # later layers may change it in place
                rows = rows.flatten(1) if rows.ndim > 1 else rows[:, None]
                found[layer] = Activation(rows, module)

        return hook

    handles = [module.register_forward_hook(keep(layer)) for layer, module in chosen.items()]
    modes = {module: module.training for module in model.modules()}
    devices = {p.device.index for p in model.parameters() if p.is_cuda}
    written = EagerWhileObserved()
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            model.eval()
            if isinstance(inputs, dict):
                model(**inputs)
            else:
                model(*(inputs if isinstance(inputs, tuple) else (inputs,)))
    finally:
        written.release()
        for handle in handles:
            handle.remove()
        for module, training in modes.items():  # a module before those in it
            if module.training != training:
                module.train(training)
    if not found:
        raise InputError("no layer returned a floating tensor for these inputs")
    return {name: found[name] for name in chosen if name in found}


def description(model: nn.Module, name: str, found: Mapping[str, Activation]) -> Models:
    """What the layers of `found` are; the others are as for `activations`."""
    layers = {layer: of.layer for layer, of in found.items()}
    return {name or type(unwrapped(model)).__name__: describe(layers, None, weights_of)}
