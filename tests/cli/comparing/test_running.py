"""`flexrec check --run` and `flexrec golden learn`, run as a user runs them."""

import json
import os
from pathlib import Path

import pytest

from support.commands import fails, flexrec
from support.diff_cases import bent, record


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs, of which the second differs from step 5 on."""
    changed = ("middle/outputs/mean", "last/inputs/mean")
    return record(tmp_path / "a.h5"), record(tmp_path / "b.h5", bent(5, changed))


def test_exit_codes_are_those_of_diff(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run, other = runs
    golden = tmp_path / "g.json"
    assert f"there is no golden {golden}; --update writes it" in fails(
        "check", "--run", run, "-g", golden
    )
    out, _ = flexrec("check", "--run", run, "-g", golden, "--update", code=0)
    assert out == f"{golden}: written, 20 keys, 160 values\n"
    assert "are equal: 20 keys, 8 steps" in flexrec("check", "--run", run, "-g", golden, code=0)[0]
    out, _ = flexrec("check", "--run", other, "-g", golden, code=1)
    assert "first     step 5, forward, middle: outputs differ, its inputs" in out
    assert out.endswith(f"obtained: {tmp_path / 'g.obtained.json'} (--update accepts it)\n")
    flexrec("check", "--run", other, "-g", golden, "--rtol", "1e-3", code=0)
    flexrec("check", "--run", other, "-g", golden, "--update", code=0)


def test_keys_every_and_json(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run, other = runs
    chosen = ("-g", tmp_path / "g.json", "-k", "middle/*", "--every", "4")
    flexrec("check", "--run", run, *chosen, "--update", code=0)
    assert '"every": 4' in (tmp_path / "g.json").read_text()
    found = json.loads(flexrec("check", "--run", other, *chosen, "--json", code=1)[0])
    assert (found["equal"], found["written"], found["first"]["step"]) == (False, False, 5)
    assert found["obtained"].endswith("g.obtained.json")


def test_options_of_plots_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    golden = ("-g", tmp_path / "g.json")
    options = ("-p", "loss", "--digits", "3", "--show")
    _, error = flexrec("check", "--run", runs[0], *golden, *options, code=2)
    assert "--preset and --digits and --show do nothing with --run" in error
    assert "compared with one recording, got 2" in fails("check", "--run", *runs, *golden)


def test_a_golden_is_learnt(tmp_path: Path) -> None:
    def run(number: int) -> Path:
        noise = {"train_loss": number * 1e-4, "middle/outputs/mean": number * 1e-4}
        return record(tmp_path / f"{number}.h5", bent(0, noise))

    golden = tmp_path / "g.json"
    out, _ = flexrec("golden", "learn", run(0), run(1), run(2), "-o", golden, code=0)
    assert out == f"{golden}: written, 20 keys of 3 runs\n"
    flexrec("check", "--run", run(1), "-g", golden, code=0)
    assert (
        "outside of what 3 runs did" in flexrec("check", "--run", run(99), "-g", golden, code=1)[0]
    )
    assert "--force" in fails("golden", "learn", run(0), run(1), "-o", golden)


def test_update_is_not_offered_for_a_golden_that_was_learnt(tmp_path: Path) -> None:
    def run(number: int, more: float = 0.0) -> Path:
        return record(tmp_path / f"{number}.h5", bent(0, {"train_loss": number * 1e-4 + more}))

    golden = tmp_path / "g.json"
    flexrec("golden", "learn", run(0), run(1), "-o", golden, code=0)
    out, _ = flexrec("check", "--run", run(2, 1e30), "-g", golden, code=1)
    assert out.endswith(f"obtained: {tmp_path / 'g.obtained.json'}\n")


def test_a_file_in_the_way_of_what_was_obtained_hides_no_difference(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    run, other = runs
    golden = tmp_path / "g.json"
    flexrec("check", "--run", run, "-g", golden, "--update", code=0)
    (tmp_path / "g.obtained.json").write_text("mine")
    out, error = flexrec("check", "--run", other, "-g", golden, code=1)
    assert "first     step 5, forward, middle" in out
    assert "what was obtained is not kept" in error
    assert (tmp_path / "g.obtained.json").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_no_golden(runs: tuple[Path, Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "g.json")
    for run in (("--run",), ()):
        error = fails("check", *run, runs[0], "-g", tmp_path / "g.json")
        assert "is a pipe, and no golden" in error
