"""From the arguments of a Recorder to a live file that can be written.

In: a path, a mode, a config. Out: a new live file, or one that goes on where an earlier run ended.
Open create.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "create",
    "facts",
    "place",
    "trail",
)
