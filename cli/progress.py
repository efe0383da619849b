"""Progress lines for long work, on a terminal; nothing is shown in a pipe."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.live import Live

    from flexrec.recorder.recording import Recording


_PATIENCE = 0.5  # seconds until something is shown, and until it is shown anew


def reading(runs: "Sequence[Recording]") -> AbstractContextManager[None]:
    """Show how much of the recordings has been read, while the block runs."""
    size = sum(run.columns.file_bytes for run in runs) / 1e6
    return showing(
        lambda: f"read {sum(run.columns.read_bytes for run in runs) / 1e6:,.1f} of {size:,.1f} MB"
    )


def waiting(path: Path) -> AbstractContextManager[None]:
    """Show how long another process has been reading the file, while the block runs."""
    begin = time.monotonic()
    size = path.stat().st_size / 1e6 if os.path.isfile(path) else 0.0
    return showing(lambda: f"reading {size:,.1f} MB: {time.monotonic() - begin:.0f} s")


@contextmanager
def counting(done: str = "read") -> Iterator[Callable[[int, int], None]]:
    """Show how many recordings have been read, as told to the function that is yielded.

    `done` says what has been done with them instead.
    """
    told = [0, 0]

    def tell(count: int, total: int) -> None:
        told[:] = count, total

    with showing(
        lambda: f"{done} {told[0]:,} of {told[1]:,} recordings" if told[1] else "searching"
    ):
        yield tell


@contextmanager
def showing(say: Callable[[], str]) -> Iterator[None]:
    """Show the text that `say` returns, twice a second, in a line that is removed at the end.

    Short work shows nothing, and does not import rich.
    """
    if not sys.stderr.isatty():
        yield
        return
    shown: list[Live] = []
    timer = threading.Timer(_PATIENCE, lambda: shown.append(_begun(say)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for live in shown:
            live.stop()


def _begun(say: Callable[[], str]) -> "Live":
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    live = Live(
        get_renderable=lambda: Text(say(), no_wrap=True, overflow="ellipsis"),
        console=Console(stderr=True),
        refresh_per_second=1 / _PATIENCE,
        transient=True,
        redirect_stdout=False,  # it may be a file of the user's
        redirect_stderr=False,
    )
    live.start(refresh=True)
    return live
