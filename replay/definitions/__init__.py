"""Definitions: the plots, and the meters that feed them.

In: dicts, TOML files, names of presets. Out: checked Definitions and Alarms. Open definitions.py
first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "alarms",
    "auto",
    "definitions",
    "phases",
    "presets",
    "toml",
)
