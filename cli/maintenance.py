"""`flexrec verify` and `flexrec repair`: ask, and print."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import typer

from flexrec.cli.output import echo
from flexrec.cli.progress import reading, waiting
from flexrec.cli.replaying import tell_state
from flexrec.recorder.errors import RecordingError, counted
from flexrec.recorder.files.atomic_write import writing
from flexrec.recorder.maintenance.merge import merge_recordings
from flexrec.recorder.maintenance.repair import repair, verify
from flexrec.recorder.recording import Recording
from flexrec.replay.diff.resumes import audited_in_a_line


def verify_recording(path: Path, seconds: float | None) -> None:
    """Print the state of a recording; exit with 1 unless it is whole."""
    with waiting(path):
        verdict = verify(path, seconds=seconds)
    echo(f"{path}: {verdict.state}: {verdict.detail}")
    if verdict.state != "whole":
        raise typer.Exit(1)
    with Recording(path) as run:
        repeated = audited_in_a_line(run)
    if repeated:
        echo(f"{path}: {repeated}")


def repair_recording(path: Path, keep_original: bool, seconds: float | None) -> None:
    """Repair a recording, and print what was done."""
    try:
        with waiting(path):
            done = repair(path, keep_original=keep_original, seconds=seconds)
    except OSError as error:
        raise RecordingError(f"{path} cannot be repaired: {error.strerror or error}") from error
    echo(done)


def merge_into(paths: Sequence[Path], into: Path, *, overwrite: bool) -> None:
    """Merge, and say of how much; say on stderr which recordings end early or have holes."""
    with ExitStack() as stack:
        runs = [stack.enter_context(Recording(path)) for path in paths]
        for run in runs:
            tell_state(run)
        with reading(runs), writing(into):
            count = merge_recordings(runs, into, overwrite=overwrite)
    echo(f"{into}: {counted(count, 'event')} of {counted(len(paths), 'recording')}")
