"""Runs as plain JSON data."""

import math
from collections.abc import Sequence
from typing import Any

from flexrec.replay.runs.row import Cell, key_of
from flexrec.replay.runs.selection import Selection

_PLAIN = ("state", "started", "seconds", "error")
_TAG = "tag."


def records(selection: Selection, columns: Sequence[str]) -> list[dict[str, Any]]:
    """A dict for each run: name, path, state, started, seconds, error, config, tags, metrics.

    `config` is as it was recorded. `metrics` holds the statistics of each key of numbers, or the
    given columns alone. Numbers that are not finite are None.

    Raises:
        QueryError: there is no such column.
    """
    selection.check(columns)
    has = set(selection.columns)
    tags = [name for name in selection.columns if name.startswith(_TAG)]
    metrics = list(columns) or [name for name in selection.columns if key_of(name, has)]
    names = ["name", *(name for name in _PLAIN if name in has), *tags, *metrics]
    found = list[dict[str, Any]]()
    for one, row, config in zip(
        selection.found, selection.rows(names), selection.configs(), strict=True
    ):
        cells = dict(zip(names, map(_plain, row), strict=True))
        found.append(
            {"name": cells["name"], "path": one.path}
            | {name: cells.get(name) for name in _PLAIN}
            | {"config": config}
            | {"tags": {n.removeprefix(_TAG): cells[n] for n in tags if cells[n] is not None}}
            | {"metrics": _metrics(cells, metrics, has, is_nested=not columns)}
        )
    return found


def _metrics(
    cells: dict[str, Any], names: Sequence[str], has: set[str], *, is_nested: bool
) -> dict[str, Any]:
    """The cells by column; or by key and statistic, without those of other runs' keys."""
    if not is_nested:
        return {name: cells[name] for name in names}
    found: dict[str, Any] = {}
    for name in names:
        key = key_of(name, has)
        if cells.get(f"{key}.count") is not None:
            found.setdefault(key, {})[name.rpartition(".")[2]] = cells[name]
    return found


def _plain(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
