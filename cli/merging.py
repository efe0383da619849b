"""`flexrec merge`: the recordings of a run's ranks made into one."""

from collections.abc import Sequence
from pathlib import Path

from flexrec.cli.output import counted, echo
from flexrec.cli.replaying import tell_state
from flexrec.recorder.merging import merge_recordings
from flexrec.recorder.reader import Recording

__all__ = ["merge_into"]


def merge_into(paths: Sequence[Path], into: Path, *, overwrite: bool) -> None:
    """Merge, and say of how much; say on stderr which recordings end early or have holes."""
    for path in paths:
        with Recording(path) as run:
            tell_state(run)
    count = merge_recordings(paths, into, overwrite=overwrite)
    echo(f"{into}: {counted(count, 'event')} of {counted(len(paths), 'recording')}")
