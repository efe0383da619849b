"""Check a run against its golden file, for the command and for pytest's `run_check`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flexrec.recorder.errors import DefinitionError, GoldenError, RecordingError
from flexrec.recorder.recording import Recording
from flexrec.replay.diff.columns import Tolerance
from flexrec.replay.diff.result import RunDiff
from flexrec.replay.golden.files import is_to_be_made, settle, write_text
from flexrec.replay.golden.run.compare import compare
from flexrec.replay.golden.run.document import GOLDEN_RUN, dump, read, thinned
from flexrec.replay.golden.run.envelope import Learnt, compare_learnt, learn
from flexrec.replay.golden.run.kept import KeptRun
from flexrec.replay.golden.run.reading import kept_of


@dataclass(frozen=True)
class RunOutcome:
    """The result of a check.

    Attributes:
        path: the golden file.
        diff: the comparison with the golden before the check; None if there was none.
        keys, values: how many the run has.
        written: whether the golden was written.
        kept: the file with what was obtained, if it differs and could be written.
        unkept: why that file could not be written; else empty.
        learnt: the number of runs that the golden was learnt from; 0: it was not learnt.
    """

    path: Path
    diff: RunDiff | None
    keys: int
    values: int
    written: bool = False
    kept: Path | None = None
    unkept: str = ""
    learnt: int = 0

    @property
    def holds(self) -> bool:
        """Whether the run is as the golden, or the golden was just written."""
        return self.written or (self.diff is not None and self.diff.equal)


def check_run(
    recording: Recording,
    path: str | os.PathLike[str],
    *,
    keys: str | Sequence[str] = (),
    rtol: float = 0.0,
    atol: float = 0.0,
    every: int | None = None,
    update: bool = False,
) -> RunOutcome:
    """Compare a recording with a golden of a run, or write it.

    If they differ, what was obtained is written beside the golden, as `NAME.obtained.json`; that
    file is removed when they are equal again.

    Args:
        recording: the run.
        path: the golden file.
        keys: a name or pattern of keys to keep, or several; by default all but those that measure
            time.
        rtol, atol: numbers may be apart by `atol + rtol * |golden|`; both 0: by no bit.
        every: keep the values of every n-th step of a key; by default as the golden does.
        update: write the golden if it is missing or differs.

    Raises:
        GoldenError: there is no golden and `update` is false, it cannot be read, the run has too
            many values, or `update` would replace a golden that was learnt.
        DefinitionError: a tolerance or `every` is no such number, or the golden has tolerances of
            its own.
        RecordingError: the recording cannot be read, or has no such key.
        OutputError: the golden cannot be written.
    """
    path, tolerance = Path(path), _tolerance(rtol, atol)
    _check_every(every)
    golden = None if update and is_to_be_made(path) else read(path)
    run = kept_of(recording, keys)
    diff = None if golden is None else _compared(golden, run, tolerance)
    is_equal = diff is not None and diff.equal
    if golden is not None and golden.learnt and update and not is_equal:
        raise GoldenError(
            f"{path} was learnt from {golden.learnt} runs, and this one differs from it: learn it "
            "again with this one among them, or remove it"
        )
    thin = thinned(run, golden.every if golden is not None and every is None else every)
    settled = settle(path, lambda: dump(thin), GOLDEN_RUN, is_equal=is_equal, update=update)
    values = sum(map(len, run.cells.values()))
    learnt = 0 if golden is None else golden.learnt
    return RunOutcome(path, diff, len(run.cells), values, *settled, learnt)


def learn_golden(
    recordings: Sequence[Recording],
    path: str | os.PathLike[str],
    *,
    keys: str | Sequence[str] = (),
    every: int | None = None,
    overwrite: bool = False,
) -> Learnt:
    """Learn a golden from several runs, and write it.

    Args:
        recordings: the runs.
        path: the golden file.
        keys, every: as in `check_run`.
        overwrite: whether to overwrite a golden of a run.

    Raises:
        DefinitionError: `every` is no such number.
        RecordingError: there are fewer than two, one is given twice, or they have nothing in
            common.
        OutputError: the file cannot be written, or exists.
    """
    path = Path(path)
    _check_distinct(recordings)
    _check_every(every)
    found = learn([kept_of(recording, keys) for recording in recordings], path.name, every)
    inputs = [recording.path for recording in recordings]
    write_text(path, dump(found.golden), GOLDEN_RUN, overwrite=overwrite, inputs=inputs)
    return found


def _check_every(every: int | None) -> None:
    if every is not None and (isinstance(every, bool) or every < 1):
        raise DefinitionError(f"every must be a number of steps, 1 or more, got {every!r}")


def _check_distinct(recordings: Sequence[Recording]) -> None:
    paths = [os.path.realpath(recording.path) for recording in recordings]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise RecordingError(
            f"{twice} is given twice: a golden is learnt from different runs, as one has no spread"
        )


def _compared(golden: KeptRun, run: KeptRun, tolerance: Tolerance) -> RunDiff:
    if not golden.learnt:
        return compare(golden, run, tolerance)
    if tolerance:
        raise DefinitionError(
            f"{golden.name} has tolerances of its own, learnt from {golden.learnt} runs: leave "
            "rtol and atol out"
        )
    return compare_learnt(golden, run)


def _tolerance(rtol: float, atol: float) -> Tolerance:
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not 0 <= value < float("inf"):
            raise DefinitionError(f"{name} must be a number, 0 or more, got {value!r}")
    return Tolerance(rtol, atol)
