"""`flexrec export`: a recording's numbers and texts as a table, for pandas or a spreadsheet.

The rows and the CSV format are in replay/export/tables.py, Parquet is in replay/export/parquet.py.
"""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from flexrec.cli.output import echo
from flexrec.cli.progress import reading
from flexrec.recorder.errors import counted, listed
from flexrec.recorder.recording import Recording
from flexrec.replay.export.formulas import formulas_note
from flexrec.replay.export.keys import chosen_keys
from flexrec.replay.export.tables import (
    table_pieces,
    write_csv,
    write_table,
)


def export_recording(path: Path, out: Path | None, *, keys: Sequence[str], overwrite: bool) -> None:
    """Write a row for each value, to a file or as CSV to stdout; print what is not exported.

    A name that ends in .parquet means Parquet; .csv, .txt and no ending mean CSV.

    Raises:
        OutputError: the file exists and may not be overwritten, it cannot be written, or its name
            has another ending.
        UnknownKeyError: a name or pattern matches no key.
    """
    with Recording(path) as run:
        chosen = chosen_keys(run, keys)
        plain = [key for key in chosen if run.columns.is_plain(key)]
        left = [f"{key} ({run.kind(key)})" for key in chosen if key not in plain]
        if out is None:
            if isinstance(sys.stdout, TextIOWrapper):
                sys.stdout.reconfigure(newline="\n")  # as in a file, on Windows too
            written = write_csv(table_pieces(run, plain), sys.stdout)
        else:
            with reading([run]):
                written = write_table(run, plain, out, overwrite)
            echo(f"{out}: {counted(written.rows, 'row')} of {counted(len(plain), 'key')}")
    if written.formulas:
        echo(f"flexrec: {formulas_note(written.formulas)}", err=True)
    if left:
        echo(f"flexrec: not exported (only Python can read them): {listed(left)}", err=True)
