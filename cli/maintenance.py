"""`flexrec verify`, `flexrec repair` and `flexrec merge`: call recorder/maintenance, and print."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import typer

from flexrec.cli.output import echo, echo_json
from flexrec.cli.progress import reading, waiting
from flexrec.cli.replaying import tell_state
from flexrec.recorder.errors import OutputError, counted
from flexrec.recorder.maintenance.merge import merge_recordings
from flexrec.recorder.maintenance.repair import Repaired, Verdict, repair, verify
from flexrec.recorder.recording import Recording
from flexrec.replay.diff.resumes import audited_in_a_line


def verify_recording(path: Path, seconds: float | None, *, as_json: bool) -> None:
    """Print the state of a recording; exit with 1 unless it is whole."""
    with waiting(path):
        verdict = verify(path, seconds=seconds)
    if as_json:
        echo_json({"path": str(path), **asdict(verdict)})
        raise typer.Exit(verdict.state != "whole")
    echo(f"{path}: {verdict.state}: {verdict_text(verdict)}")
    if verdict.state != "whole":
        raise typer.Exit(1)
    with Recording(path) as run:
        repeated = audited_in_a_line(run)
    if repeated:
        echo(f"{path}: {repeated}")


def verdict_text(verdict: Verdict) -> str:
    """One line that says what `verify` found."""
    events = counted(verdict.events, "event")
    if verdict.state == "damaged":
        return verdict.fault
    if verdict.state == "whole":
        left = "; closing it was not finished: flexrec repair finishes it"
        return events + ("" if verdict.is_clean else left)
    if verdict.last_step is not None:
        events += f", up to step {verdict.last_step}"
    if verdict.left_out:
        events += f"; {verdict.left_out:,} after the last sync were torn by a loss of power"
    return f"{events}; if its run is over, flexrec repair closes it"


def repair_recording(
    path: Path, keep_original: bool, seconds: float | None, *, as_json: bool
) -> None:
    """Repair a recording, and print what `repair` did."""
    try:
        with waiting(path):
            done = repair(path, keep_original=keep_original, seconds=seconds)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be repaired: {error.strerror or error}") from error
    if as_json:
        original = None if done.original is None else str(done.original)
        echo_json({**asdict(done), "path": str(done.path), "original": original})
    else:
        echo(repaired_text(done))


def repaired_text(done: Repaired) -> str:
    """One line that says what `repair` did."""
    if not done.is_changed:
        return f"{done.path} is whole: nothing to repair"
    parts = [f"{done.path} is closed now: {counted(done.events, 'event')}"]
    if done.left_out:
        parts.append(f"{done.left_out:,} that were not whole are left out")
    if done.damage:
        parts.append(done.damage)
    if done.original is not None:
        parts.append(f"the original is {done.original}")
    return "; ".join(parts)


def merge_into(paths: Sequence[Path], into: Path, *, overwrite: bool, as_json: bool) -> None:
    """Merge, and print the counts; print to stderr which recordings end early or have gaps."""
    with ExitStack() as stack:
        runs = [stack.enter_context(Recording(path)) for path in paths]
        for run in runs:
            tell_state(run)
        with reading(runs):
            made = merge_recordings(runs, into, overwrite=overwrite)
    if as_json:
        echo_json({**asdict(made), "path": str(made.path)})
        return
    events, recordings = counted(made.events, "event"), counted(made.recordings, "recording")
    echo(f"{into}: {events} of {recordings}")
