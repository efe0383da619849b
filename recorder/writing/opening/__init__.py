"""Create or resume the live file of a Recorder.

In: a path, a mode, a config. Out: a new live file, or one that continues an earlier run. Open
create.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "create",
    "facts",
    "place",
    "trail",
)
