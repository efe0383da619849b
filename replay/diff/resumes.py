"""Audit a recording that was resumed: compare the values of steps that were recorded twice."""

from collections.abc import Sequence

from flexrec.recorder.recording import Recording, ResumePoint
from flexrec.recorder.storage.store import taken_back
from flexrec.replay.diff.columns import Tolerance
from flexrec.replay.diff.compare import compare_runs, fitting
from flexrec.replay.diff.result import ResumeAudit, RunAudit
from flexrec.replay.diff.run import Range, Run

_EXACT = Tolerance()
_SMALL = 1 << 16  # most events that `flexrec verify` compares as well
_END = 1 << 62  # more than any recording's events


def audit(
    run: Recording,
    *,
    patterns: Sequence[str] = (),
    tolerance: Tolerance = _EXACT,
) -> RunAudit:
    """Compare the values that each resume of a recording took back with those that replaced them.

    If a checkpoint holds everything that training needs, the repeated steps are equal to the bit.

    Args:
        run: the recording.
        patterns: names and patterns of keys; empty means all.
        tolerance: the allowed difference of numbers.

    Raises:
        RecordingError: a pattern fits no key.
    """
    fitting(patterns, [*dict.fromkeys((*run, *run.taken_back()))], f"{run.path.name} has no key")
    resumes = _apart(run.resume_points())
    ends = [*(resume.position for resume in resumes), _END][1:]
    audits = []
    for i, (resume, last) in enumerate(zip(resumes, ends, strict=True)):
        before = _shown_before(resume, resumes[:i])
        if before:
            after = [(resume.position, last)]
            audits.append(_audited(run, resume, before, after, patterns, tolerance))
    return RunAudit(run.path.name, all(each.diff.equal for each in audits), tuple(audits))


def audited_in_a_line(run: Recording) -> str | None:
    """Describe in one line what the resumes of a recording repeated.

    None: nothing was taken back, or too much to compare it quickly.
    """
    if not 0 < run.superseded <= _SMALL:
        return None
    found = audit(run).resumes
    lines = [f"resumed at step {each.step}: {each}" for each in found]
    return "; ".join(lines) or None


def _apart(resumes: Sequence[ResumePoint]) -> list[ResumePoint]:
    """The last of each group of resumes with nothing recorded in between: training used that."""
    found = list[ResumePoint]()
    for resume in resumes:
        if found and found[-1].position + 1 == resume.position:
            first = min(resume.first, found.pop().first)
            resume = resume._replace(first=first)
        found.append(resume)
    return found


def _shown_before(resume: ResumePoint, earlier: Sequence[ResumePoint]) -> list[Range]:
    """The events taken back by a resume that no earlier resume had taken back."""
    hidden = taken_back([(each.position, float(each.first)) for each in earlier], resume.position)
    ranges, at = list[Range](), resume.first
    for first, last in hidden:
        if at < first:
            ranges.append((at, min(first, resume.position)))
        at = max(at, last)
    if at < resume.position:
        ranges.append((at, resume.position))
    return ranges


def _audited(
    run: Recording,
    resume: ResumePoint,
    before: Sequence[Range],
    after: Sequence[Range],
    patterns: Sequence[str],
    tolerance: Tolerance,
) -> ResumeAudit:
    views = [run, run.taken_back()]
    found = compare_runs(
        Run("before", views, before),
        Run("after", views, after),
        patterns=patterns,
        tolerance=tolerance,
        in_common=True,
    )
    return ResumeAudit(resume.step, resume.position, found.steps, found, exact=not tolerance)
