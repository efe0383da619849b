"""What a Recording says of itself, and what pandas gets of it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from flexrec.recorder import MissingDependency, Recorder, Recording, RecordingError
from support.crashing import crash


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False) as rec:
        for i in range(10):
            rec.add(loss=i / 4, note=f"at {i}", array=np.arange(i))
            rec.step()
        rec.log(3)
        rec.reset()
    return path


def test_a_recording_is_complete_when_its_run_ended(tmp_path: Path) -> None:
    rec = Recorder(tmp_path / "run.h5")
    rec.add(loss=1)
    rec.flush()
    with Recording(rec.path) as run:
        assert not run.complete
    rec.close()
    with Recording(rec.path) as run:
        assert run.complete
    run.close()
    assert run.complete, "that it was closed here is another matter"


def test_reprs_say_what_it_is_in_a_line(path: Path, tmp_path: Path) -> None:
    with Recording(path) as run:
        assert repr(run) == f"<Recording {path}: 3 keys, 12 events, complete>"
        assert repr(run["loss"]) == "<Series 'loss': 10 values, steps 0 to 9, last 2.25>"
        assert repr(run["note"]) == "<Series 'note': 10 values, steps 0 to 9, last 'at 9'>"
        assert len(repr(run["array"])) < 120
        assert repr(run.marks) == "<Marks: 1 log, last at x = 3, 1 reset>"
    assert repr(run) == f"<Recording {path}: 3 keys, closed here>"
    killed = Recorder(tmp_path / "killed.h5")
    killed.add(long="x" * 1000)
    crash(killed)
    with Recording(killed.path) as run:
        assert repr(run).endswith("1 key, 1 event, not complete>")
        assert len(repr(run["long"])) < 120


def test_without_pandas_it_says_what_to_install(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with Recording(path) as run:
        for give in (run.to_pandas, run["loss"].to_pandas):
            with pytest.raises(MissingDependency, match="pip install 'pandas'"):
                give()


def test_a_series_for_pandas(path: Path) -> None:
    pytest.importorskip("pandas")
    with Recording(path) as run:
        loss, array = run["loss"].to_pandas(), run["array"].to_pandas()
    assert loss.name == "loss"
    assert loss.index.name == "step"
    assert loss.index.tolist() == list(range(10))
    assert loss.tolist() == [i / 4 for i in range(10)]
    assert array.loc[3].tolist() == [0, 1, 2]


def test_a_table_for_pandas(path: Path) -> None:
    pytest.importorskip("pandas")
    with Recording(path) as run:
        frame, loss = run.to_pandas(), run.to_pandas(["loss"])
        assert frame.columns.tolist() == ["key", "step", "time", "value"]
        assert frame["key"].tolist() == ["loss"] * 10 + ["note"] * 10, "arrays are no rows"
        assert frame["value"].tolist()[9:11] == [2.25, "at 0"]
        assert frame["time"].tolist()[:10] == run["loss"].time.tolist()
        assert loss["value"].dtype == np.float64
        wide = loss.pivot(index="step", columns="key", values="value")
        assert wide["loss"].tolist() == [i / 4 for i in range(10)]
        assert run.to_pandas([]).shape == (0, 4)
        with pytest.raises(RecordingError, match=r"array is float64:1|array is int64:1"):
            run.to_pandas(["array"])
