"""Compute the statistics: numbers of tensors, on the device that they are on.

In: the tensors of a layer's call, gradients and weights. Out: numbers by source and statistic.
Open statistics.py first: it has the list of statistics; measures.py has their formulas.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "collected",
    "costs",
    "gradient_noise",
    "measures",
    "statistics",
    "units",
)
