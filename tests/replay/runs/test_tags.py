"""Tags beside a recording."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flexrec.recorder import OutputError, Recorder, RecordingError
from flexrec.recorder.files.lock import locked
from flexrec.replay.runs import tags
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


def test_tags_that_are_set_at_once_are_all_kept(run: Path) -> None:
    def several(first: int) -> None:
        for number in range(first, first + 5):
            tag(run, f"tag {number}")

    with ThreadPoolExecutor(4) as threads:  # each locks with a descriptor of its own
        list(threads.map(several, range(0, 20, 5)))
    assert tags_of(run) == {f"tag {number}": "" for number in range(20)}
    assert sorted(each.name for each in run.parent.iterdir()) == ["run.h5", "run.h5.tags"]


def test_a_tag_waits_for_the_process_that_changes_the_tags(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags, "_WAIT", 0.03)
    with (
        locked(Path(f"{run}.tags")),
        pytest.raises(RecordingError, match=r"run\.h5\.tags is being"),
    ):
        tag(run, "good")
    assert tag(run, "good") == {"good": ""}
