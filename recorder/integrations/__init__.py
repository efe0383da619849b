"""Record from training frameworks and in place of other trackers; imported only when used.

In: a framework's hooks, or another tracker's calls. Out: a Recorder's. Open hooked_recorder.py
first: it is what the adapters share. docs/integrations.md shows how to write another one.
importing/ reads the files of other tools.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("importing",)
