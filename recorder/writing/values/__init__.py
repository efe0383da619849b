"""From the values of one add to bytes, or to copies that wait to be written.

In: what event_queue.py takes from its callers. Out: queued events. Open encoders.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "copies",
    "encoders",
    "shared_arrays",
)
