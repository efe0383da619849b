"""`flexrec diff`, run as a user runs it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flexrec.cli.commands import app
from flexrec.recorder import Recorder
from support.commands import fails, flexrec
from support.diff_cases import bent, both, noisy, record, values


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs, of which the second differs from step 5 on."""
    changed = ("middle/outputs/mean", "last/inputs/mean")
    return record(tmp_path / "a.h5"), record(tmp_path / "b.h5", bent(5, changed))


def test_exit_codes_are_those_of_diff(runs: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = runs
    assert flexrec("diff", a, a, code=0)[0].startswith("a.h5 and a.h5 are equal")
    out, _ = flexrec("diff", a, b, code=1)
    assert "first     step 5, forward, middle: outputs differ" in out
    assert "does not exist" in fails("diff", a, tmp_path / "none.h5")
    assert "--map takes OLD=NEW" in fails("diff", a, b, "--map", "old")
    assert "has a key that fits 'zz'" in fails("diff", a, b, "-k", "zz")
    assert "Missing argument" in flexrec("diff", code=2)[1]


def printed(*words: object, code: int) -> str:
    """What `flexrec diff` prints, run in this process."""
    done = CliRunner().invoke(app, ["diff", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.stdout


def test_many_are_compared_with_one(runs: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = runs
    (tmp_path / "more").mkdir()
    same, cut = tmp_path / "more" / "same.h5", tmp_path / "more" / "cut.h5"
    same.write_bytes(a.read_bytes())
    out = printed(a, same, a, code=0)
    assert f"2 runs: 2 equal to {a}, 0 different" in out
    lines = printed(a, tmp_path, code=1).splitlines()
    assert [line.split("  ")[0] for line in lines[:-1]] == [str(b), str(same)]  # not a itself
    assert "  step 5, forward, middle: outputs differ" in lines[0]
    assert "  equal: " in lines[1]
    assert lines[-1] == f"2 runs: 1 equal to {a}, 1 different"
    cut.write_bytes(a.read_bytes()[:-100])
    out = printed(a, tmp_path, "--json", "-k", "lr", code=2)
    found = json.loads(out)
    assert (found["a"], found["equal"]) == (str(a), False)
    assert [(Path(run["path"]).name, run.get("equal")) for run in found["runs"]] == [
        ("b.h5", True),
        ("cut.h5", None),
        ("same.h5", True),
    ]
    assert f"{cut} is damaged" in found["runs"][1]["error"]
    assert printed(a, tmp_path, "--json", "-k", "lr", "--workers", 2, code=2) == out
    assert "no recording to compare" in fails("diff", a, tmp_path / "a*.h5")
    printed(a, b, "--workers", 2, code=2)
    printed(a, tmp_path, "--html", tmp_path / "page.html", code=2)


def test_options(runs: tuple[Path, Path]) -> None:
    flexrec("diff", *runs, "--rtol", "1e-3", code=0)
    flexrec("diff", *runs, "--atol", "1e-3", code=0)
    flexrec("diff", *runs, "-k", "*/weights/*", "-k", "lr", code=0)
    flexrec("diff", *runs, "--map", "mid*=x.mid*", code=1)


def test_json_has_every_field(runs: tuple[Path, Path]) -> None:
    found = json.loads(flexrec("diff", *runs, "--json", code=1)[0])
    fields = {"equal", "first", "keys", "config", "facts", "spread", "crossed", "noise"}
    assert fields <= found.keys()
    of_first = {"step", "previous_step", "stage", "model", "layer", "key", "a", "b", "relative"}
    assert of_first <= found["first"].keys()
    assert {"compared", "differ", "only_a", "only_b"} <= found["keys"].keys()
    assert (found["equal"], found["first"]["step"], found["first"]["layer"]) == (False, 5, "middle")
    assert found["spread"] == [{"step": 5, "layers": 2, "of": 3}]


def test_numbers_that_json_has_not(tmp_path: Path) -> None:
    for name, value in (("a.h5", float("nan")), ("b.h5", float("inf"))):
        record(tmp_path / name, lambda _, found, v=value: found.update(train_loss=v))  # type: ignore[misc]
    out, _ = flexrec("diff", tmp_path / "a.h5", tmp_path / "b.h5", "--json", code=1)
    first = json.loads(out)["first"]
    assert (first["a"], first["b"], first["relative"]) == ("nan", "inf", None)


def test_one_recording_is_audited(tmp_path: Path) -> None:
    path = record(tmp_path / "run.h5")
    with Recorder(path, mode="resume", next_step=5, facts=False) as rec:
        for step in range(5, 10):
            rec.add(values(step))
            rec.step()
    said = "resumed at step 5: 3 steps repeated: equal to the bit"
    assert said in flexrec("diff", path)[0]
    assert json.loads(flexrec("diff", path, "--json")[0])["resumes"][0]["repeated"] == 3
    assert said in flexrec("show", path)[0]
    assert said in flexrec("verify", path)[0]


def test_ranks(tmp_path: Path) -> None:
    paths = [
        record(tmp_path / f"run-{rank}.h5", bent(4 if rank == 1 else 99, ("last/weights/mean",)))
        for rank in range(3)
    ]
    out, _ = flexrec("diff", "--ranks", *paths, code=1)
    assert "last/weights/mean agrees up to step 3, from step 4 on not on run-1.h5" in out
    table = json.loads(flexrec("diff", "--ranks", "--json", *paths, code=1)[0])
    assert table["split"][0]["ranks"] == ["run-1.h5"]
    flexrec("diff", "--ranks", *paths[::2], code=0)


def test_noise(tmp_path: Path) -> None:
    refs = [record(tmp_path / f"a{i}.h5", noisy(i), steps=30) for i in range(3)]
    same = record(tmp_path / "same.h5", noisy(8), steps=30)
    beyond = bent(10, {"middle/outputs/mean": 1.0, "last/inputs/mean": 1.0})
    b = record(tmp_path / "b.h5", both(noisy(9), beyond), steps=30)
    flexrec("diff", refs[0], same, "--noise", *refs[1:], code=0)
    flexrec("diff", "--noise", refs[1], "--noise", refs[2], "--", refs[0], same, code=0)
    table = json.loads(flexrec("diff", refs[0], b, "--noise", *refs[1:], "--json", code=1)[0])
    assert (table["noise"]["since"], table["noise"]["seen"]) == (10, 19)
    assert (table["first"]["step"], table["first"]["layer"]) == (10, "middle")
    assert table["spread"] == [{"step": 10, "layers": 2, "of": 3}]
    assert "one run has no spread, so there is no verdict" in fails(
        "diff", *refs[:2], "--noise", refs[0]
    )
    assert "requires an argument" in flexrec("diff", *refs[:2], "--noise", code=2)[1]
    _, error = flexrec("diff", refs[0], "--noise", refs[1], code=2)
    assert "--noise needs two recordings" in error
    assert "choose a tolerance" in fails("diff", *refs[:2], "--noise", refs[2], "--rtol", 1)


def test_drawing(runs: tuple[Path, Path], tmp_path: Path) -> None:
    save = tmp_path / "env.json"
    out, _ = flexrec("diff", *runs, "--save", save, code=1)
    assert out.splitlines()[0] == "a.h5 and b.h5 differ"
    assert out.splitlines()[-1] == f"drawn in {save}"
    drawn = json.loads(save.read_text())["jsons"]
    assert sorted(drawn) == ["diff/layers", "diff/report", "diff/train_loss"]
    assert "exists already" in fails("diff", *runs, "--save", save)
    out, err = flexrec("diff", *runs, "--html", tmp_path / "page.html", "--json", code=1)
    assert json.loads(out)["first"]["layer"] == "middle"
    assert "drawn in" in err
    assert "first: step 5, middle" in (tmp_path / "page.html").read_text()
    assert "127.0.0.1" in fails("diff", *runs, "--server", "http://127.0.0.1", "--port", 9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--save", "env.json", "--serve"), "choose one of --save"),
        (("--port", 1), "--port does nothing without --html"),
        (("--html", "x.html", "--ranks"), "--html needs two recordings"),
        (("--noise", "a.h5", "--ranks"), "--noise needs two recordings"),
        (("--map", "a=b", "--ranks"), "--map does nothing without two recordings"),
    ],
)
def test_options_that_exclude_each_other(
    runs: tuple[Path, Path], options: tuple[object, ...], said: str
) -> None:
    assert said in flexrec("diff", *runs, *options, code=2)[1].replace("\n", "")
