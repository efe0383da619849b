"""Which meters feed which plots.

In: dicts, TOML files, names of presets. Out: checked Definitions. Open definitions.py first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "auto",
    "definitions",
    "phases",
    "presets",
    "toml",
)
