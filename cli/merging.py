"""`flexrec merge`: the recordings of a run's ranks made into one."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from flexrec.cli.output import echo, writing
from flexrec.cli.progress import reading
from flexrec.cli.replaying import tell_state
from flexrec.recorder.merging import merge_recordings
from flexrec.recorder.reader import Recording
from flexrec.recorder.wording import counted

__all__ = ["merge_into"]


def merge_into(paths: Sequence[Path], into: Path, *, overwrite: bool) -> None:
    """Merge, and say of how much; say on stderr which recordings end early or have holes."""
    with ExitStack() as stack:
        runs = [stack.enter_context(Recording(path)) for path in paths]
        for run in runs:
            tell_state(run)
        with reading(runs), writing(into):
            count = merge_recordings(runs, into, overwrite=overwrite)
    echo(f"{into}: {counted(count, 'event')} of {counted(len(paths), 'recording')}")
