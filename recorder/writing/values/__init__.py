"""Encode the values of an add to bytes, or copy them until they are written.

In: the values passed to event_queue.py. Out: queued events. Open encoders.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "accelerator",
    "copies",
    "encoders",
    "shared_arrays",
)
