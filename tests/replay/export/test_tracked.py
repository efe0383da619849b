"""The order in which other trackers get a recording's values."""

from pathlib import Path

from flexrec.recorder import Recorder, Recording
from flexrec.replay.export.tracked import adds_by_step, project_of


def test_values_come_by_step_and_then_as_they_were_recorded(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.add({"late": 1.0, "both": 2.0}, step=7)
        rec.add({"early": 3.0}, step=-1)
        rec.add({"note": "b"}, step=7)
        rec.add({"note": "a", "late": 4.0}, step=2)
    with Recording(rec.path) as run:
        found = [(add.step, dict(add.values)) for add in adds_by_step(run, list(run))]
        times = [add.time for add in adds_by_step(run, ["note"])]
        assert times == sorted(run["note"].time.tolist(), reverse=True)
        assert list(adds_by_step(run, [])) == []
        assert project_of(run) == tmp_path.name
    assert found == [
        (-1, {"early": 3.0}),
        (2, {"late": 4.0, "note": "a"}),
        (7, {"late": 1.0, "both": 2.0}),
        (7, {"note": "b"}),
    ]
