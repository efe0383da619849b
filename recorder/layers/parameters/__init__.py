"""Measure weights, and their gradients, updates and optimizer state when an optimizer steps.

In: layers, their optimizers and the statistics' measures. Out: measures by layer and source. Open
weights.py first; optimizers.py has the hooks that an optimizer gets.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "loss_scale",
    "optimizers",
    "weights",
)
