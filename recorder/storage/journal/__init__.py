"""The journal of a live file: a record for each block that was appended (docs/format.md).

In: the bytes of a live file. Out: the lengths and places of what is whole in it. Open records.py
first. recorder/writing/journal_writer.py writes it.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("reader", "records")
