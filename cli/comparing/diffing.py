"""`flexrec diff`: recordings against each other; exit codes as in diff(1)."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from flexrec.cli.output import echo
from flexrec.cli.progress import counting, reading
from flexrec.cli.replaying import Outlet, tell_state
from flexrec.recorder.errors import DefinitionError
from flexrec.recorder.files.atomic_write import writing
from flexrec.recorder.recording import Recording
from flexrec.replay.diff.columns import Tolerance
from flexrec.replay.diff.compare import diff, runs_of
from flexrec.replay.diff.ranks import diff_ranks
from flexrec.replay.diff.result import RanksDiff, RunAudit, RunDiff
from flexrec.replay.diff.resumes import audit
from flexrec.replay.diff.windows import windows_of
from flexrec.replay.runs.comparing.diffs import diff_many
from flexrec.replay.runs.workers.choose import Wanted, workers_of


def diff_recordings(
    paths: Sequence[Path],
    *,
    keys: Sequence[str],
    rename: Sequence[str],
    rtol: float,
    atol: float,
    noise: Sequence[Path],
    ranks: bool,
    as_json: bool,
    outlet: Outlet | None,
) -> bool:
    """Compare, print the differences, and draw those of two runs; return whether there are none."""
    with ExitStack() as stack:
        runs = [stack.enter_context(Recording(path)) for path in paths]
        references = [stack.enter_context(Recording(path)) for path in noise]
        for run in (*runs, *references):
            tell_state(run)
        with reading([*runs, *references]):
            found: RunDiff | RunAudit | RanksDiff
            if ranks:
                found = diff_ranks(runs, patterns=keys, tolerance=Tolerance(rtol, atol))
            elif len(runs) == 1:
                found = audit(runs[0], patterns=keys, tolerance=Tolerance(rtol, atol))
            else:
                found = diff(
                    *runs,
                    keys=keys,
                    rename=_renaming(rename),
                    rtol=rtol,
                    atol=atol,
                    noise=references,
                )
                if outlet is not None:
                    pair = runs_of([*runs, *references], _renaming(rename))
                    outlet.sink.show(windows_of(found, *pair, patterns=keys))
    echo(json.dumps(found.table(), indent=1, allow_nan=False) if as_json else str(found))
    if outlet is not None:
        with writing(outlet.place):
            outlet.sink.close()
        echo(f"drawn in {outlet.place}", err=as_json)
    return found.equal


def diff_with_many(
    one: Path,
    places: Sequence[Path],
    *,
    keys: Sequence[str],
    rename: Sequence[str],
    rtol: float,
    atol: float,
    as_json: bool,
    workers: Wanted,
) -> int:
    """Compare recordings with one, and print a line for each; return the exit code."""
    with counting() as tell:
        found = diff_many(
            one,
            places,
            keys=keys,
            rename=_renaming(rename),
            rtol=rtol,
            atol=atol,
            workers=workers_of(workers),
            tell=tell,
        )
    echo(json.dumps(found.table(), indent=1, allow_nan=False) if as_json else str(found))
    return 2 if found.failed else 0 if found.equal else 1


def _renaming(given: Sequence[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for each, (old, _, new) in zip(given, pairs, strict=True):
        if not old or not new:
            raise DefinitionError(f"--map takes OLD=NEW, such as 'old.*=new.*', got {each!r}")
    return {old: new for old, _, new in pairs}
