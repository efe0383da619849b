"""Sample the machine every few seconds: processors, memory, disk, network and GPUs.

machine.py reads the machine; it is imported only when a recorder monitors.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic

from flexrec.recorder.errors import RecordingError
from flexrec.recorder.files.names import SYSTEM
from flexrec.recorder.writing.event_queue import EventQueue

LEAST_SECONDS = 0.01
"""The shortest time between samples: one takes a part of that."""


def machine_beside(path: Path) -> Callable[[], dict[str, float]]:
    """What reads the machine, and the disk of a file.

    Raises:
        MissingDependency: psutil is not installed.
    """
    from flexrec.recorder.writing.surroundings.machine import Machine

    return Machine(path).read


class Monitor:
    """Records samples of the machine, at the current step and at the time of the sample.

    Args:
        queue: where values are added.
        read: reads the machine; gives numbers by name.
        seconds: the time between samples.
        clock: tells seconds.
    """

    def __init__(
        self,
        queue: EventQueue,
        read: Callable[[], Mapping[str, float]],
        seconds: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._queue, self._read, self._clock = queue, read, clock
        self.seconds = seconds
        self._due = math.inf
        self._has_ended = False

    def start(self) -> str | None:
        """Begin: the first sample is due after `seconds`."""
        self._due = self._clock() + self.seconds
        return None

    def tick(self) -> str | None:
        """Take a sample if it is due; return a warning if the machine cannot be read."""
        if self._has_ended or self._clock() < self._due:
            return None
        self._due = self._clock() + self.seconds
        try:
            values = {f"{SYSTEM}{name}": value for name, value in self._read().items()}
        except Exception as error:  # noqa: BLE001 - of whatever library: recording goes on
            self._has_ended = True
            return f"the machine is no longer monitored: {type(error).__name__}: {error}"
        with suppress(RecordingError):  # the recorder was closed meanwhile
            self._queue.record(self._queue.step, self._queue.now(), values)
        return None

    def close(self) -> None:
        """End."""
        self._has_ended = True

    def forget(self) -> None:
        """End in a forked child."""
        self._has_ended = True
