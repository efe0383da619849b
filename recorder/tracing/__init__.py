"""The trace of a step: fingerprints of all that training computes, in the order of time.

In: models, optimizers and values that are named. Out: an array of fingerprints for each step, and
texts that say which is which. Open trace.py first; format.py needs no torch.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "format",
    "trace",
)
