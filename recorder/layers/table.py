"""Describe a model's layers, and print their statistics as a table with a two-level header.

Does not import torch, since it is used to show recordings too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tabulate import tabulate

from flexrec.recorder.errors import one_line
from flexrec.recorder.layers.models import Description

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

_FIELDS = ("class", "parameters", "trainable", "dtype", "order", "calls")

_Statistics = Mapping[str, Mapping[str, Mapping[str, object]]]


@dataclass
class Calls:
    """The number of a layer's calls in a step, and the shape of its first output."""

    number: int = 0
    shape: list[int] | None = None

    def note(self, output: "Iterable[Tensor]") -> None:
        """Note the shape of the first tensor of an output, if it is the first output."""
        if self.shape is None:
            self.shape = next((list(tensor.shape) for tensor in output), None)


class Table(str):
    """A string that is shown in the REPL as `print` shows it.

    >>> Table("a | b")
    a | b
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def layer_table(statistics: _Statistics) -> Table:
    """Format a table with sources above statistics, and one row per layer; "-" if missing.

    >>> layer_table({"0": {"weights": {"mean": 0.0287, "std": 0.0068}}})
    +----------+------------------+
    |          |     Weights      |
    | Layers   |   mean     std   |
    +----------+------------------+
    | 0        |  0.0287   0.0068 |
    +----------+------------------+

    Args:
        statistics: values by layer, source and statistic; for an array the shape is shown.
    """
    blocks = [_names(list(statistics))]
    for source in _in_order(statistics.values()):
        of_layers = [sources.get(source, {}) for sources in statistics.values()]
        names = _in_order(of_layers)
        blocks.append(
            _block(source.capitalize(), [(n, [v.get(n) for v in of_layers]) for n in names])
        )
    rule = "+".join(["", *("-" * (len(block[0]) + 2) for block in blocks), ""])
    upper, lower, *rows = ("| " + " | ".join(line) + " |" for line in zip(*blocks, strict=True))
    return Table("\n".join([rule, upper, lower, rule, *rows, *([rule] if rows else [])]))


def describe(
    layers: "Mapping[str, Module]",
    calls: Mapping[str, Calls] | None,
    weights_of: "Callable[[Module], Mapping[str, Parameter]]",
) -> Description:
    """Describe layers: what each is, and how it was called.

    Args:
        layers: the modules by name.
        calls: the calls of one step by name, in the order of the first calls; None if the layers
            are not watched.
        weights_of: returns the parameters that are measured as a module's weights.
    """
    order = {name: number for number, name in enumerate(calls or ())}
    found: Description = {}
    for name, module in layers.items():
        own = list(module.parameters(recurse=False))
        trained = [parameter for parameter in own if parameter.requires_grad]
        call = None if calls is None else calls.get(name, Calls())
        found[name] = {
            "class": type(module).__name__,
            "parameters": sum(map(_size, own)),
            "trainable": sum(map(_size, trained)),
            "dtype": str(own[0].dtype).removeprefix("torch.") if own else None,
            "order": order.get(name),
            "calls": None if call is None else call.number,
            "output": None if call is None else call.shape,
        }
        shards = [_shard(parameter) for parameter in weights_of(module).values()]
        if any(shards):
            found[name]["shard"] = _together(shards)
    return found


def _size(parameter: "Parameter") -> int:
    """The number of elements; 0 as long as a lazy parameter has no shape."""
    return 0 if hasattr(parameter, "materialize") else parameter.numel()


def _together(shards: "Sequence[_Shard | None]") -> dict[str, Any]:
    """A layer's place in the mesh, if it is that of all its weights, and what is held there."""
    there = [shard for shard in shards if shard is not None]
    at, of = there[0].at, there[0].of
    if len(there) < len(shards) or any((shard.at, shard.of) != (at, of) for shard in there):
        return {"at": None, "of": None}
    elements, is_trained = sum(shard.elements for shard in there), all(s.trains for s in there)
    return {"at": at, "of": of, "weights": elements, "trainable": is_trained}


class _Shard(NamedTuple):
    """This process's place in the mesh dimensions over which a DTensor is sharded, their sizes,
    the number of elements here, and whether they are trained."""

    at: list[int]
    of: list[int]
    elements: int
    trains: bool


def _shard(parameter: Any) -> _Shard | None:
    """What this process holds of a DTensor; None if the parameter is whole here."""
    mesh: Any = getattr(parameter, "device_mesh", None)
    place = None if mesh is None else mesh.get_coordinate()
    if place is None:
        return None
    over = [i for i, placement in enumerate(parameter.placements) if placement.is_shard()]
    if not over:
        return None
    held = parameter.to_local().numel()
    at, of = [place[i] for i in over], [mesh.size(i) for i in over]
    return _Shard(at, of, held, parameter.requires_grad)


def model_table(models: Mapping[str, Description]) -> str:
    """Format what the layers of models are, one row per layer."""
    rows = []
    for layers in models.values():
        for name, layer in layers.items():
            shape = layer.get("output")
            output = "x".join(map(str, shape)) if isinstance(shape, list) else shape
            cells = [name, *(layer.get(field) for field in _FIELDS), output, _held(layer)]
            rows.append(["-" if cell is None else one_line(str(cell)) for cell in cells])
    names = ["layer", *_FIELDS, "output", "weights held here"]
    if all(row[-1] == "-" for row in rows):  # nothing is sharded
        names, rows = names[:-1], [row[:-1] for row in rows]
    return tabulate(rows, names, disable_numparse=True)


def _held(layer: Mapping[str, Any]) -> object:
    """How many elements of a sharded layer's weights the process held; None if it is whole."""
    shard = layer.get("shard")
    return shard.get("weights", "a part") if isinstance(shard, dict) else None


def _in_order(lists: Iterable[Iterable[str]]) -> list[str]:
    """Merge lists of names; new names of later lists are put next to their neighbours there."""
    order: list[str] = []
    for names in lists:
        place = 0
        for name in names:
            if name not in order:
                order.insert(place, name)
            place = order.index(name) + 1
    return order


def _names(layers: list[str]) -> list[str]:
    width = max(8, *(len(name) for name in ["Layers", *layers]))
    return [line.ljust(width) for line in ["", "Layers", *layers]]


def _block(title: str, columns: list[tuple[str, list[object]]]) -> list[str]:
    """The lines of one source, padded to equal width: title, statistics, one row per layer."""
    padded = []
    for name, values in columns:
        cells = [_cell(value) for value in values]
        width = max(7, *(len(cell) for cell in [name, *cells]))
        padded.append([name.center(width), *(cell.rjust(width) for cell in cells)])
    lines = ["  ".join(cells) for cells in zip(*padded, strict=True)]
    width = max(len(title), len(lines[0]))
    return [line.center(width) for line in [title, *lines]]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if not isinstance(value, (int, float)):
        return "x".join(map(str, getattr(value, "shape", ()))) or str(value)
    size = abs(value)
    if size >= 100:
        return f"{value:.4g}"
    return f"{value:.4f}" if size >= 1e-3 or size == 0 else f"{value:.1e}"
