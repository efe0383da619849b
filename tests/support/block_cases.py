"""Blocks so small that the little that tests record and replay is of many."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

__all__ = ["blocks_of"]


@contextmanager
def blocks_of(events: int | None) -> Iterator[None]:
    """Read, close and replay in blocks of so many events; None: as ever.

    Where the number is even slices wait for a few blocks; where it is odd they wait for none.
    """
    if events is None:
        yield
        return
    with (
        patch("flexrec.recorder.storage.store.BLOCK_EVENTS", events),
        patch("flexrec.recorder.storage.store.BLOCK_SLOTS", 3 * events),
        patch("flexrec.recorder.storage.live_store._PIECE", 2 * events),
        patch("flexrec.recorder.storage.closed_store._PIECE", 2 * events),
        patch("flexrec.recorder.storage.closing.compact._HELD", 100),
        patch("flexrec.replay.player.player._HELD", events),
        patch("flexrec.replay.engine.column_replay._LONGEST", 0 if events % 2 else 2 * events),
    ):
        yield
