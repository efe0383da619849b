"""Tags beside a recording."""

from pathlib import Path

import pytest

from flexrec.recorder import OutputError, Recorder, RecordingError
from flexrec.replay.runs.tags import tag, tags_of, untag


@pytest.fixture
def run(tmp_path: Path) -> Path:
    Recorder(tmp_path / "run.h5").close()
    return tmp_path / "run.h5"


def test_tags_are_set_replaced_and_taken_away(run: Path) -> None:
    before = run.read_bytes()
    assert tags_of(run) == {}
    tag(run, "good", "a note")
    assert tag(run, "seed 1") == {"good": "a note", "seed 1": ""}
    assert tag(run, "good")["good"] == ""
    assert untag(run, "good") == {"seed 1": ""} == tags_of(run)
    assert run.read_bytes() == before
    with pytest.raises(RecordingError, match="has no tag 'good'; its tags are seed 1"):
        untag(run, "good")


def test_what_cannot_be_tagged(run: Path) -> None:
    with pytest.raises(RecordingError, match="does not exist"):
        tag(run.with_name("none.h5"), "good")
    other = run.with_name("train.py")
    other.write_text("import torch")
    with pytest.raises(RecordingError, match="is not a flexrec recording"):
        tag(other, "good")
    assert sorted(run.parent.iterdir()) == [run, other]
    with pytest.raises(RecordingError, match="needs a name"):
        tag(run, " ")
    with pytest.raises(RecordingError, match="more than"):
        tag(run, "good", "x" * 70_000)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 60_000, '{"flexrec_tags": 1}', "\xff"])
def test_another_file_says_nothing_and_is_left_as_it_is(run: Path, content: str) -> None:
    beside = Path(f"{run}.tags")
    beside.write_text(content, encoding="latin-1")
    assert tags_of(run) == {}
    if content:
        with pytest.raises(OutputError, match="is not a file of tags"):
            tag(run, "good")
        assert beside.read_text(encoding="latin-1") == content
