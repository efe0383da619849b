"""`flexrec import` and `flexrec export`: to and from the files of other tools.

In: paths and checked options. Out: files, and what is printed about them. Open importing.py or
exporting.py, the command's name.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("exporting", "importing")
