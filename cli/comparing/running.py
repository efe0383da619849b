"""`flexrec check --run` and `flexrec golden learn`: training runs against golden files."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from flexrec.cli.output import echo, echo_json
from flexrec.cli.progress import reading
from flexrec.cli.replaying import tell_state, tell_unkept
from flexrec.recorder.errors import RecordingError, counted
from flexrec.recorder.recording import Recording
from flexrec.replay.golden.run.check import RunOutcome, check_run, learn_golden


def check_training(
    paths: Sequence[Path],
    *,
    golden: Path,
    keys: Sequence[str],
    rtol: float,
    atol: float,
    every: int | None,
    update: bool,
    as_json: bool,
) -> bool:
    """Compare, and print the outcome; return whether the golden matches now."""
    if len(paths) != 1:
        raise RecordingError(f"a golden of a run is compared with one recording, got {len(paths)}")
    with Recording(paths[0]) as run:
        tell_state(run)
        with reading([run]):
            outcome = check_run(
                run, golden, keys=keys, rtol=rtol, atol=atol, every=every, update=update
            )
    echo(_json(outcome) if as_json else _text(outcome))
    tell_unkept(outcome.unkept)
    return outcome.holds


def learn_from(
    paths: Sequence[Path],
    out: Path,
    *,
    keys: Sequence[str],
    every: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Learn a golden, write it, and print what is in it and what is not."""
    with ExitStack() as stack:
        runs = [stack.enter_context(Recording(path)) for path in paths]
        for run in runs:
            tell_state(run)
        with reading(runs):
            found = learn_golden(runs, out, keys=keys, every=every, overwrite=overwrite)
    if as_json:
        keys, left_out = list(found.golden.cells), dict(found.left_out)
        echo_json({"path": str(out), "runs": len(runs), "keys": keys, "left_out": left_out})
        return
    amount = counted(len(found.golden.cells), "key")
    echo(f"{out}: written, {amount} of {counted(len(runs), 'run')}")
    for key, why in found.left_out.items():
        echo(f"left out: {key}: {why}")


def _text(outcome: RunOutcome) -> str:
    lines = [] if outcome.diff is None else [str(outcome.diff)]
    if outcome.kept is not None:
        accepts = "" if outcome.learnt else " (--update accepts it)"
        lines.append(f"obtained: {outcome.kept}{accepts}")
    if outcome.written:
        amount = f"{counted(outcome.keys, 'key')}, {counted(outcome.values, 'value')}"
        lines.append(f"{outcome.path}: written, {amount}")
    return "\n".join(lines)


def _json(outcome: RunOutcome) -> str:
    files = {
        "golden": str(outcome.path),
        "obtained": None if outcome.kept is None else str(outcome.kept),
        "written": outcome.written,
    }
    found = {} if outcome.diff is None else outcome.diff.table()
    return json.dumps({**files, **found}, indent=1, allow_nan=False)
