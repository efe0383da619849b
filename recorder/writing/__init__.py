"""Queue added values, encode them, and write them to a live file.

In: the arguments of `Recorder.add`. Out: rows of a live file, flushed by a background thread.
Open event_queue.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "checkpoints",
    "config",
    "event_queue",
    "flusher",
    "lifetime",
    "opening",
    "surroundings",
)
