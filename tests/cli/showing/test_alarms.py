"""`flexrec replay --alarms`: what it says of old runs."""

import json
import math
from pathlib import Path

import pytest

from flexrec.recorder import Recorder
from support.commands import fails, flexrec


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of two recordings and a file of alarms."""
    for name, last in (("good", 0.5), ("bad", math.nan)):
        with Recorder(tmp_path / f"{name}.h5", config={"name": name}) as rec:
            for step, value in enumerate((1.0, 0.7, last)):
                rec.add({"train_loss": value}, step=step)
            rec.log(epoch=0)
    (tmp_path / "alarms.toml").write_text('[alarms.nan]\nkey = "*loss"\nis = "nan"\n')
    return tmp_path


def test_it_says_where_alarms_would_have_gone_off(runs: Path) -> None:
    alarms = runs / "alarms.toml"
    out, _ = flexrec("replay", runs / "bad.h5", "--alarms", alarms, code=1)
    assert out == "nan: 'train_loss' at step 2: nan\n1 alarm in 1 recording\n"
    out, _ = flexrec("replay", runs / "good.h5", "--alarms", alarms)
    assert out == "0 alarms in 1 recording\n"
    out, _ = flexrec("replay", runs, "--alarms", alarms, "--json", code=1)
    (found,) = json.loads(out)["alarms"]
    assert (found["run"], found["name"], found["step"]) == ("bad", "nan", 2)
    out, _ = flexrec("replay", runs, "--where", "config.name = 'good'", "--alarms", alarms)
    assert out == "0 alarms in 1 recording\n"


def test_what_is_wrong_is_one_line(runs: Path) -> None:
    assert "cannot read" in fails("replay", runs / "bad.h5", "--alarms", runs / "none.toml")
    (runs / "alarms.toml").write_text('[alarms.nan]\nkey = "los"\nabov = 1\n')
    line = fails("replay", runs / "bad.h5", "--alarms", runs / "alarms.toml")
    assert "alarms.nan: unknown key 'abov'; did you mean 'above'" in line
    (runs / "alarms.toml").write_text('[alarms.nan]\nkey = "los"\nabove = 1\n')
    _, error = flexrec("replay", runs / "bad.h5", "--alarms", runs / "alarms.toml")
    assert "nan: no recorded key matches 'los'" in error
    _, error = flexrec(
        "replay", runs / "bad.h5", "--alarms", runs / "alarms.toml", "-p", "loss", code=2
    )
    assert "--preset does nothing with --alarms" in error


def test_a_recording_of_a_folder_that_cannot_be_read_is_named(runs: Path) -> None:
    (runs / "torn.h5").write_bytes((runs / "good.h5").read_bytes()[:-100])
    (runs / "bad.h5").unlink()
    out, error = flexrec("replay", runs, "--alarms", runs / "alarms.toml", code=1)
    assert out == "0 alarms in 1 recording\n"
    assert "torn.h5" in error
    assert "torn.h5" in fails("replay", runs / "torn.h5", "--alarms", runs / "alarms.toml")
