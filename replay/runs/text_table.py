"""Lay out cells in columns, as text for a terminal; quick enough for 100,000 rows."""

from collections.abc import Collection, Sequence
from unicodedata import combining, east_asian_width

_GAP, _WIDER = "  ", 2  # between columns; columns are wider than their names by this at least


def text_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()
) -> str:
    """The rows below the names of the columns, as tabulate's format "simple" has them.

    >>> print(text_table(["key", "last"], [["loss", "0.5"], ["test_acc", "97"]], right=[1]))
    key         last
    --------  ------
    loss         0.5
    test_acc      97

    Args:
        headers: the names.
        rows: cells in one line, as many in each row as there are names.
        right: the columns that are aligned on the right, by number.
    """
    columns = []
    for i, (name, *cells) in enumerate(zip(headers, *rows, strict=True)):
        width = max([_width(name) + _WIDER, *map(_width, cells)])
        columns.append([_padded(cell, width, i in right) for cell in (name, "-" * width, *cells)])
    return "\n".join(_GAP.join(line).rstrip() for line in zip(*columns, strict=True))


def _padded(cell: str, width: int, is_right: bool) -> str:
    space = " " * (width - _width(cell))
    return f"{space}{cell}" if is_right else f"{cell}{space}"


def _width(text: str) -> int:
    """The number of a terminal's columns that a text takes."""
    if text.isascii():
        return len(text)
    return sum((1 + (east_asian_width(char) in "WF")) * (not combining(char)) for char in text)
