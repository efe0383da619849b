"""`flexrec import`: make recordings of the runs of other tools.

recorder/integrations/importing/ reads the formats.
"""

from pathlib import Path
from typing import Any

from flexrec.cli.output import echo, echo_json
from flexrec.cli.progress import waiting
from flexrec.recorder.errors import counted, listed
from flexrec.recorder.integrations.importing.importer import Imported, import_runs


def import_from(path: Path, out: Path, *, overwrite: bool, as_json: bool) -> None:
    """Write a recording for each run at the path; print what each has, and what was left out.

    Raises:
        ExistsError: a recording exists already, and may not be overwritten.
        MissingDependency: the package that a format needs is not installed.
        OutputError: a recording cannot be written.
        RecordingError: there is nothing to import, or it cannot be read.
    """
    runs, told = import_runs(path, out, overwrite=overwrite), list[dict[str, Any]]()
    while True:
        with waiting(path):
            done = next(runs, None)
        if done is None:
            break
        told.append({**done._asdict(), "path": str(done.path)})
        if not as_json:
            _tell(done)
    if as_json:
        echo_json({"recordings": told})


def _tell(done: Imported) -> None:
    echo(f"{done.path}: {counted(done.values, 'value')} of {counted(done.keys, 'key')}")
    for line in done.damage:
        echo(f"flexrec: {line}", err=True)
    if done.left_out:
        what = listed(f"{kind} ({count:,})" for kind, count in done.left_out.items())
        echo(f"flexrec: not imported: {what}", err=True)
