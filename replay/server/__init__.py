"""A visdom server that needs no internet.

In: a folder of environment files. Out: a running server, and the files of its page. Open server.py
first.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "assets",
    "server",
)
