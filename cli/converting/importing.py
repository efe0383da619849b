"""`flexrec import`: make recordings of the runs of other tools.

recorder/integrations/importing/ reads the formats.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

from flexrec.cli.output import echo, echo_json
from flexrec.cli.progress import waiting
from flexrec.recorder.errors import counted, listed
from flexrec.recorder.integrations.importing.importer import Each, Imported, import_runs
from flexrec.replay.runs.workers.choose import Wanted, workers_of
from flexrec.replay.runs.workers.spread import spread


def import_from(
    path: Path, out: Path, *, overwrite: bool, as_json: bool, workers: Wanted = None
) -> None:
    """Write a recording for each run at the path; print what each has, and what was left out.

    Workers are given absolute paths; what is printed begins as `path` and `out` do.

    Raises:
        ExistsError: a recording exists already, and may not be overwritten.
        MissingDependency: the package that a format needs is not installed.
        OutputError: a recording cannot be written.
        RecordingError: there is nothing to import, or it cannot be read.
        WorkerError: the workers cannot be reached, do not fit, or died.
    """
    each: Each = map
    given = path, out
    if workers is not None:
        path, out = path.absolute(), out.absolute()
        each = partial(spread, workers=workers_of(workers), reads=lambda job: job.source.files[0])
    runs, told = import_runs(path, out, overwrite=overwrite, each=each), list[dict[str, Any]]()
    while True:
        with waiting(path):
            done = next(runs, None)
        if done is None:
            break
        lines = (line.replace(str(path), str(given[0]), 1) for line in done.damage)
        damage = [line.removeprefix(f".{os.sep}") for line in lines]  # of "."
        done = done._replace(path=given[1] / done.path.relative_to(out), damage=damage)
        told.append({**done._asdict(), "path": str(done.path)})
        if not as_json:
            _tell(done)
    if as_json:
        echo_json({"recordings": told})


def _tell(done: Imported) -> None:
    echo(f"{done.path}: {counted(done.values, 'value')} of {counted(done.keys, 'key')}")
    for line in done.damage:
        echo(f"flexrec: {done.path}: {line}", err=True)
    if done.left_out:
        what = listed(f"{kind} ({count:,})" for kind, count in done.left_out.items())
        echo(f"flexrec: {done.path}: not imported: {what}", err=True)
