"""Recorders as most tests need them."""

from pathlib import Path
from typing import Any

from flexrec.recorder import Recorder


def recorder(path: Path | str, **options: Any) -> Recorder:
    """A recorder that writes only when told to."""
    return Recorder(path, facts=False, flush_seconds=60, **options)
