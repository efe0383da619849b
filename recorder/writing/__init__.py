"""From values that are added to the bytes of a live file.

In: what `Recorder.add` takes. Out: rows of a live file, flushed by a thread. Open event_queue.py
first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "checkpoints",
    "config",
    "event_queue",
    "flusher",
    "lifetime",
    "opening",
)
