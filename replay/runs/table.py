"""A table of runs, for a terminal, a notebook and a spreadsheet; and which columns it shows."""

import csv
import html
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from flexrec.recorder.errors import one_line, printable
from flexrec.recorder.files.names import is_around
from flexrec.replay.export.formulas import is_formula
from flexrec.replay.runs.row import STATISTICS, Cell, key_of
from flexrec.replay.runs.selection import Selection
from flexrec.replay.runs.text_table import text_table

_FIRST = ("name", "state", "started", "seconds")
_KEYS, _CONFIG, _WIDTH = 4, 8, 40  # most keys and config values; characters of a cell
_LOW = re.compile(r"loss|err|mse|mae|nll|perplexity|ppl|fid|wer|cer", re.IGNORECASE)
_HIGH = re.compile(
    r"acc|auc|f1|map|precision|recall|score|iou|dice|bleu|rouge|reward|return|psnr|ssim|r2",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Table:
    """Rows of cells under the names of columns; shows itself as text, and in a notebook.

    Attributes:
        columns: the names.
        rows: a tuple of cells for each run: texts, numbers, or None where a run has no value.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]

    def __str__(self) -> str:
        cells = [[shown(cell) for cell in row] for row in self.rows]
        right = [
            i
            for i in range(len(self.columns))
            if self.rows and all(isinstance(row[i], int | float | None) for row in self.rows)
        ]
        return text_table([one_line(name) for name in self.columns], cells, right=right)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(one_line(name))}</th>" for name in self.columns)
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(shown(cell))}</td>' for cell in row)}</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

    def write_csv(self, file: TextIO) -> int:
        """Write the table as CSV: numbers in full, an empty cell where there is no value.

        Returns:
            The number of cells that a spreadsheet may run as formulas.
        """
        clean = printable if file.isatty() else str
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(clean, self.columns))
        for row in self.rows:
            writer.writerow([clean(cell) if isinstance(cell, str) else cell for cell in row])
        return sum(is_formula(cell) for row in (self.columns, *self.rows) for cell in row)

    def csv(self) -> str:
        """The table as CSV."""
        text = io.StringIO()
        self.write_csv(text)
        return text.getvalue()


def holds_csv(path: Path) -> bool:
    """Whether the first line of a file has columns of a table of runs, and so it may be one."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        names: list[str] = next(csv.reader([file.readline(1 << 20)]), [])
    return any(
        name in (*_FIRST, "path")
        or name.startswith(("config.", "tag."))
        or name.rpartition(".")[2] in STATISTICS
        for name in names
    )


def default_columns(selection: Selection) -> list[str]:
    """The name, the state and the times; config values that differ; keys' last and best values."""
    has = set(selection.columns)
    first = [name for name in _FIRST if name in has]
    config = [name for name in selection.columns if name.startswith("config.")]
    keys = [key_of(name, has) for name in selection.columns if name.endswith(".last")]
    keys = [key for key in keys if key and not is_around(key)]
    spread = selection.spread([*first, *config, *(f"{key}.count" for key in keys)])
    known = spread["started"].rows if "started" in spread else 0  # of a damaged run, no config is
    differing = [
        name
        for name in config
        if 0 < spread[name].rows < known or spread[name].least != spread[name].greatest
    ]
    there = {key: spread[f"{key}.count"].rows for key in keys if spread[f"{key}.count"].rows}
    chosen = sorted(there, key=lambda key: (key.count("/"), best_of(key) is None, -there[key]))
    metrics = list[str]()
    for key in chosen[:_KEYS]:
        best = best_of(key)
        metrics += [f"{key}.last", *([f"{key}.{best}"] if best else [])]
    tags = [name for name in ("tags", "note", "error") if name in has]
    told = {name for name, each in selection.spread(tags).items() if each.rows}
    return [*first, *differing[:_CONFIG], *metrics, *(name for name in tags if name in told)]


def best_of(key: str) -> str | None:
    """Whether the best value of a key is its "min" or its "max", by its name; None: unknown.

    >>> best_of("train_loss"), best_of("test_acc"), best_of("lr")
    ('min', 'max', None)
    """
    return "min" if _LOW.search(key) else "max" if _HIGH.search(key) else None


def shown(cell: Cell) -> str:
    """A cell as a short text in one line."""
    if isinstance(cell, float):
        return f"{cell:.6g}"
    text = "" if cell is None else one_line(str(cell))
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
