"""Cells that a spreadsheet may run as formulas."""

from typing import Any

from flexrec.recorder.errors import counted

_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r")


def is_formula(value: Any) -> bool:
    """Whether a spreadsheet may run the cell as a formula."""
    return isinstance(value, str) and value.startswith(_BEGINNINGS)


def formulas_note(count: int) -> str:
    """The warning about this number of formulas."""
    return (
        f"{counted(count, 'cell')} with =, +, - or @ first, which a spreadsheet may run as a "
        "formula: import these columns as text"
    )
