"""Follow recordings while they are written: feed the engine as events come, and show the windows.

When the recordings are closed, or on Ctrl-C or SIGTERM, the windows equal those of a replay.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, Self

from flexrec.recorder.errors import DefinitionError, ServerError
from flexrec.recorder.events import Add, Log, Value
from flexrec.recorder.layers.models import layers_of_all
from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.follow import Follower, Superseded
from flexrec.replay.definitions.definitions import Definitions
from flexrec.replay.engine.engine import Engine
from flexrec.replay.engine.window_builder import classes_of, overlay
from flexrec.replay.player.player import EverySteps, Played, completed, play_all, run_names
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.resending import ResendingSink
from flexrec.replay.sinks.visdom import VisdomSink


class FollowedRun:
    """A growing recording, and the windows of its events so far.

    Args:
        path: the recording.
        definitions: what to draw.
        every: as in `play`; if None, the recording is drawn step by step until its first log.
        strict: as in `play`.
        values: the first value of each key; shared by runs that are shown together.
    """

    def __init__(
        self,
        path: Path,
        definitions: Definitions,
        *,
        every: int | None = None,
        strict: bool = False,
        values: dict[str, Value | None] | None = None,
    ) -> None:
        self.path, self._definitions, self._every = path, definitions, every
        self._strict, self._values = strict, {} if values is None else values
        self._follower: Follower | None = None
        self._facts: dict[str, Any] | None = None
        self._start(has_logs=False)

    @property
    def ended(self) -> bool:
        """Whether the recording is closed, and all its events were read."""
        return self._follower is not None and self._follower.ended

    def poll(self) -> bool:
        """Read new events; return whether there were any.

        Raises:
            RecordingError: it can no longer be read.
            MeterError: a meter cannot take a value, if `strict`.
        """
        found, restarted = False, True
        while restarted:
            restarted = False
            self._follower = self._follower or Follower(self.path)
            for event in self._follower.poll():
                found = True
                if isinstance(event, Superseded):
                    self._start(has_logs=False)
                    restarted = True
                    break
                if self._every is None and not self._has_logs and isinstance(event, Log):
                    self._start(has_logs=True)
                    restarted = True
                    break
                if isinstance(event, Add):
                    self._values |= {k: v for k, v in event.values.items() if k not in self._values}
                self._complete()
                (self._steps or self._engine).feed(event)
        facts = None if self._follower is None else self._follower.facts
        if facts is not self._facts:
            self._facts, found = facts, True
        self._engine.board.classes = classes_of(layers_of_all(facts or {}))
        return found

    def windows(self) -> list[Window]:
        """The windows so far."""
        return self._engine.windows()

    def close(self) -> None:
        """Close the file."""
        if self._follower is not None:
            self._follower.close()

    def _start(self, *, has_logs: bool) -> None:
        """Discard everything, to read the recording again from its start."""
        self.close()
        self._follower, self._has_logs = None, has_logs
        self._engine = Engine(completed(self._definitions, {}), strict=self._strict)
        self._known = 0
        every = self._every or (None if has_logs else 1)
        self._steps = EverySteps(self._engine, every) if every else None

    def _complete(self) -> None:
        """With the preset `auto`, draw keys that are new in this or another run shown with it."""
        if self._definitions.auto is not None and len(self._values) != self._known:
            self._known = len(self._values)
            self._engine.redefine(completed(self._definitions, self._values))


def follow_recordings(
    paths: Sequence[Path],
    definitions: Definitions,
    sink: VisdomSink | None,
    *,
    every: int | None = None,
    poll_seconds: float = 1.0,
    tell: Callable[[str], None],
    strict: bool = False,
) -> Played:
    """Show growing recordings until all are closed, or until Ctrl-C or SIGTERM.

    >>> follow_recordings([Path("run.h5")], preset("loss"), None, tell=print)
    Played(windows=[<Window 'loss': line, 1 trace (train)>], left_out=[])

    Args:
        paths: the recordings.
        definitions, every, strict: as in `play`.
        sink: the visdom server, which may be restarted meanwhile; None: show nothing.
        poll_seconds: the time between reads of the recordings.
        tell: called with each message for the user.

    Returns:
        The final windows, equal to those of `play`, and what was left out of them.

    Raises:
        RecordingError, MeterError, DefinitionError: as `play`.
        ServerError: the server does not answer, at the start or at the end.
    """
    screen = None if sink is None else ResendingSink(sink, tell=tell)
    if sink is not None:
        sink.probe()
    names = run_names(list(paths))
    values: dict[str, Value | None] = {}
    runs = {
        name: FollowedRun(path, definitions, every=every, strict=strict, values=values)
        for name, path in zip(names, paths, strict=True)
    }
    try:
        with _Interrupts() as interrupts:
            while not interrupts.came and not all(run.ended for run in runs.values()):
                news = [run.poll() for run in runs.values()]
                if screen is not None and any(news):
                    screen.show(overlay({name: run.windows() for name, run in runs.items()}))
                elif screen is not None:
                    screen.report()
                if not all(run.ended for run in runs.values()):
                    time.sleep(poll_seconds)
    finally:
        for run in runs.values():
            run.close()
    try:
        with ExitStack() as stack:
            recordings = [stack.enter_context(Recording(path)) for path in paths]
            played = play_all(recordings, definitions, every=every, strict=strict)
    except DefinitionError:
        if not interrupts.came:
            raise
        played = Played([], [])  # interrupted before there was anything to show
    if screen is None:
        return played
    try:
        screen.show(played.windows)
        screen.close(math.inf)
    except ServerError as error:
        if not interrupts.came:
            raise
        tell(str(error))  # the Ctrl-C may have ended a server of ours too
    return played


class _Interrupts:
    """While the block runs, note Ctrl-C and SIGTERM in `came` instead of raising.

    A KeyboardInterrupt raised while HDF5 calls back into Python would be lost. A Ctrl-C after an
    earlier signal is raised. The caller's handlers, such as those of `flexrec serve`, are still
    called. SIGTERM without a handler, which timeout(1) sends twice, is only noted.
    """

    def __init__(self) -> None:
        self.came = False
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Self:
        if (
            threading.current_thread() is threading.main_thread()
        ):  # only this thread can set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler) or (number, handler) == (signal.SIGTERM, signal.SIG_DFL):
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.came = self.came, True
        handler = self._before[number]
        if not callable(handler):
            return
        try:
            handler(number, frame)
        except KeyboardInterrupt:
            if again:
                raise
