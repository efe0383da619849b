"""Trace training steps: fingerprints of everything a step computes, in order of computation.

In: models, optimizers and named values. Out: an array of fingerprints for each step, and strings
that name them. Open trace.py first; format.py does not import torch.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "environment",
    "format",
    "trace",
)
