"""`flexrec verify` and `flexrec repair`: ask, and print."""

from pathlib import Path

import typer

from flexrec.cli.output import echo
from flexrec.cli.progress import waiting
from flexrec.recorder.errors import RecordingError
from flexrec.recorder.repair import repair, verify

__all__ = ["repair_recording", "verify_recording"]


def verify_recording(path: Path, seconds: float | None) -> None:
    """Print the state of a recording; exit with 1 unless it is whole."""
    with waiting(path):
        verdict = verify(path, seconds=seconds)
    echo(f"{path}: {verdict.state}: {verdict.detail}")
    if verdict.state != "whole":
        raise typer.Exit(1)


def repair_recording(path: Path, keep_original: bool, seconds: float | None) -> None:
    """Repair a recording, and print what was done."""
    try:
        with waiting(path):
            done = repair(path, keep_original=keep_original, seconds=seconds)
    except OSError as error:
        raise RecordingError(f"{path} cannot be repaired: {error.strerror or error}") from error
    echo(done)
