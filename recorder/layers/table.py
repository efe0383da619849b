"""The table of layer statistics with a two-level header, as text.

Does not import torch, since it is used to show recordings too.
"""

from collections.abc import Iterable, Mapping

_Statistics = Mapping[str, Mapping[str, Mapping[str, object]]]


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
