"""`flexrec export`: a recording's numbers and texts as a table, for pandas or a spreadsheet.

Which rows there are, and CSV; how they become Parquet is in replay/export/parquet.py.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from flexrec.cli.output import echo
from flexrec.cli.progress import reading
from flexrec.recorder.errors import counted, listed
from flexrec.recorder.recording import Recording
from flexrec.replay.export.keys import chosen_keys
from flexrec.replay.export.tables import (
    table_pieces,
    write_csv,
    write_table,
)


def export_recording(path: Path, out: Path | None, *, keys: Sequence[str], overwrite: bool) -> None:
    """Write a row for each value, to a file or as CSV to stdout; say what is left out.

    A file whose name ends in .parquet is of that format; .csv, .txt and no ending mean CSV.

    Raises:
        OutputError: what is there is not overwritten; the file cannot be written, or its name
            ends otherwise.
        UnknownKeyError: a name or pattern fits no key.
    """
    with Recording(path) as run:
        chosen = chosen_keys(run, keys)
        plain = [key for key in chosen if run.columns.is_plain(key)]
        left = [f"{key} ({run.kind(key)})" for key in chosen if key not in plain]
        if out is None:
            written = write_csv(table_pieces(run, plain), sys.stdout)
        else:
            with reading([run]):
                written = write_table(run, plain, out, overwrite)
            echo(f"{out}: {counted(written.rows, 'row')} of {counted(len(plain), 'key')}")
    if written.formulas:
        echo(
            f"flexrec: {counted(written.formulas, 'cell')} with =, +, - or @ first, which a "
            "spreadsheet may run as a formula: import these columns as text",
            err=True,
        )
    if left:
        echo(f"flexrec: left out, for Python alone: {listed(left)}", err=True)
