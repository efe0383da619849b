"""Record what is around the training: samples of the machine, and what the process prints.

In: the machine, standard streams. Out: values under keys of their own, through an EventQueue. Open
monitor.py or console.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "companion",
    "console",
    "monitor",
)
