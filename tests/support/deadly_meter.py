"""A meter for tests of workers that die."""

from flexrec.replay.meters import AverageValueMeter
from support.worker_cases import die_once


class DeadlyMeter(AverageValueMeter):
    """A meter of which the process dies once."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        die_once(marker)
