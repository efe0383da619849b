"""Import the runs of other tools: their files become recordings.

In: a file or folder of another tool. Out: a recording for each run in it. Open importer.py first;
each format has a file of its own.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("importer", "tensorboard", "trackio")
