"""Goldens of training runs: what a run recorded, kept as text beside the tests.

In: a recording and the path of a golden file. Out: the differences, as `flexrec diff` tells them.
Open check.py first; docs/golden_runs.md explains the file.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("check",)
