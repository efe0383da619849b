"""The schema's lines: what is written is read, and what is none of ours is refused."""

import pytest

from flexrec.recorder.storage.format import Keyset, Schema

LINES = {
    b'{"keys":["a","b"]}\n': Keyset(("a", "b")),
    b'{"keys":[]}\n': Keyset(()),
    b'{"keys":null,"axis":"epoch"}\n': Keyset(None, "epoch"),
    b'{"keys":["a"],"axis":"\xc3\xa9poque"}\n': Keyset(("a",), "époque"),
}


@pytest.mark.parametrize("line", LINES)
def test_key_sets_are_written_and_read(line: bytes) -> None:
    assert Schema.keyset_line(LINES[line]) == line
    assert Schema.decode(line).keysets == [LINES[line]]
    assert Schema.decode(line).encode() == line


@pytest.mark.parametrize(
    "line", [b'{"keys":[1]}\n', b'{"keys":["a"],"axis":3}\n', b'{"axis":"e"}\n']
)
def test_other_lines_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="the schema is damaged"):
        Schema.decode(line)
