"""`flexrec runs`, `flexrec show DIR` and `flexrec tag`, as a user runs them."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flexrec.cli.commands import app
from flexrec.recorder import ExistsError, OutputError, Recorder
from support.commands import fails, flexrec


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    for lr in (0.1, 0.2, 0.3):
        with Recorder(tmp_path / "exp" / f"lr{lr}.h5", config={"lr": lr, "name": "=1+1"}) as rec:
            rec.add(train_loss=1 / lr, test_acc=lr)
    (tmp_path / "exp" / "notes.h5").write_text("no recording")
    return tmp_path / "exp"


def test_runs_lists_and_chooses(exp: Path) -> None:
    out, error = flexrec("runs", exp)
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["name", "state", "started"]
    assert [line.split()[0] for line in lines[2:5]] == ["lr0.1", "lr0.2", "lr0.3"]
    assert lines[5:] == ["3 runs"]
    assert error == "flexrec: 1 file is no recording\n"
    out, _ = flexrec(
        *("runs", exp, "--where", "config.lr < 0.25", "--sort", "test_acc.max desc"),
        *("--columns", "name, config.lr", "--limit", 1),
    )
    assert out.splitlines()[2:] == ["lr0.2           0.2", "1 run"]
    assert flexrec("show", exp)[0].splitlines()[5] == "3 runs"


def test_runs_shows_samples_of_the_machine_only_by_name(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        rec.add({"system/cpu_percent": 7.0, "loss": 1.0})
    assert "system" not in flexrec("runs", tmp_path)[0]
    out, _ = flexrec("runs", tmp_path, "--columns", "system/cpu_percent.last")
    assert out.splitlines()[0].strip() == "system/cpu_percent.last"


def test_runs_as_json_and_csv(exp: Path) -> None:
    found = json.loads(flexrec("runs", exp, "--json", "--sort", "config.lr desc")[0])["runs"]
    assert [one["config"]["lr"] for one in found] == [0.3, 0.2, 0.1]
    assert found[0]["name"] == "lr0.3"
    assert found[0]["path"] == str(exp / "lr0.3.h5")
    assert found[0]["metrics"]["test_acc"]["max"] == 0.3
    out, error = flexrec("runs", exp, "--csv", "--columns", "name,config.name,train_loss.last")
    assert "3 cells with =, +, - or @ first" in error
    assert list(csv.reader(out.splitlines()))[:2] == [
        ["name", "config.name", "train_loss.last"],
        ["lr0.1", "=1+1", "10.0"],
    ]
    header = next(csv.reader(flexrec("runs", exp, "--csv", "--columns", "all")[0].splitlines()))
    assert {"name", "path", "config.lr", "host", "test_acc.min_at"} <= set(header)


def test_runs_are_written_to_a_file(exp: Path, tmp_path: Path) -> None:
    for name in ("r.parquet", "r.csv", "r.json", "r.html"):
        how = "--html" if name == "r.html" else "-o"
        out, error = run("runs", exp, how, tmp_path / name)
        assert out == f"{tmp_path / name}: 3 runs\n"
        assert "1 file is no recording" in error
        assert "exists already" in str(run("runs", exp, how, tmp_path / name, fails=ExistsError))
        run("runs", exp, how, tmp_path / name, "--force")
    table = pq.read_table(tmp_path / "r.parquet")
    assert table["name"].to_pylist() == ["lr0.1", "lr0.2", "lr0.3"]
    assert table["config.lr"].to_pylist() == table["test_acc.max"].to_pylist() == [0.1, 0.2, 0.3]
    assert json.loads(table["config"][0].as_py()) == {"lr": 0.1, "name": "=1+1"}
    printed = [run("runs", exp, form)[0] for form in ("--csv", "--json")]
    assert printed == [(tmp_path / name).read_text() for name in ("r.csv", "r.json")]
    some = ("--columns", "test_acc.max,name", "--where", "config.lr > 0.15")
    run("runs", exp, "-o", tmp_path / "r.parquet", "--force", *some)
    table = pq.read_table(tmp_path / "r.parquet")
    assert table.to_pydict() == {"test_acc.max": [0.2, 0.3], "name": ["lr0.2", "lr0.3"]}
    run("runs", exp, "-o", tmp_path / "r.csv", "--force", "--columns", "test_acc.max")
    run("runs", exp, "-o", tmp_path / "r.csv", "--force")


def test_all_conditions_must_hold(exp: Path) -> None:
    both = ("--where", "config.lr < 0.15 or config.lr > 0.25", "--where", "config.lr > 0.15")
    out, _ = run("runs", exp, "--csv", "--columns", "name", *both)
    assert out.split() == ["name", "lr0.3"]


def test_lists_may_be_given_in_several_options(exp: Path, tmp_path: Path) -> None:
    """Of an option that is given twice, the first is not forgotten."""
    both = ("--columns", "name", "--columns", "config.lr")
    assert run("runs", exp, "--csv", *both)[0].startswith("name,config.lr\n")
    saved = []
    for i, several in enumerate(
        (
            ("--preset", "loss", "--preset", "MSE", "--phases", "train", "--phases", "test"),
            ("--preset", "loss+MSE", "--phases", "train,test"),
        )
    ):
        groups = (
            ("--group", "config.lr", "--group", "name") if i == 0 else ("--group", "config.lr,name")
        )
        run("replay", exp, *several, *groups, "--save", tmp_path / f"{i}.json", "--env", "same")
        saved.append((tmp_path / f"{i}.json").read_bytes())
    assert saved[0] == saved[1]


def test_a_file_of_another_kind_is_not_overwritten(exp: Path, tmp_path: Path) -> None:
    for name in ("r.parquet", "r.csv", "r.json", "r.html"):
        (tmp_path / name).write_text("mine,too")
        how = "--html" if name == "r.html" else "-o"
        assert "is there already and is not" in str(
            run("runs", exp, how, tmp_path / name, "--force", fails=OutputError)
        )
        assert (tmp_path / name).read_text() == "mine,too"
    for how, name in (("-o", "r.xlsx"), ("--html", "r.csv")):
        assert name in str(run("runs", exp, how, tmp_path / name, fails=OutputError))


def run(*arguments: object, fails: type[Exception] | None = None) -> tuple[str, str]:
    """What the command prints, in this process; or the error that it ends with."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if fails is not None:
        assert isinstance(done.exception, fails)
        return str(done.exception), ""
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_what_runs_refuses(exp: Path, tmp_path: Path) -> None:
    assert fails("runs", exp, "--where", "config.lrr < 1") == (
        "no run has a column 'config.lrr'; did you mean 'config.lr'?"
    )
    assert "no run has a column 'test_acc.lst'" in fails("runs", exp, "--columns", "test_acc.lst")
    assert "does not exist" in fails("runs", tmp_path / "none")
    assert "choose one of --json and --csv" in flexrec("runs", exp, "--json", "--csv", code=2)[1]
    assert "do nothing with a folder" in flexrec("show", exp, "-k", "x", "--model", code=2)[1]
    empty = "a list of columns is empty; give names such as name,config.lr"
    assert fails("runs", exp, "--columns", "") == empty
    assert fails("replay", exp, "--group", " , ", "--html", tmp_path / "page.html") == empty
    assert "no run has a column 'a'" in fails("runs", exp, "--columns", "a\nb")
    (tmp_path / "empty").mkdir()
    out, error = flexrec("runs", tmp_path / "empty")
    assert out.splitlines()[-1] == "0 runs"
    assert "there is no recording in these places" in error
    assert json.loads(flexrec("runs", tmp_path / "empty", "--json")[0]) == {"runs": []}


def test_tags(exp: Path) -> None:
    run = exp / "lr0.1.h5"
    assert flexrec("tag", run)[0] == f"{run} has no tags\n"
    assert flexrec("tag", run, "good", "a note")[0] == "good: a note\n"
    assert flexrec("tag", run, "seed 1")[0] == "good: a note\nseed 1\n"
    out, _ = flexrec("runs", exp, "--where", "tag.good is not null", "--columns", "name,tags")
    assert out.splitlines()[2:] == ["lr0.1   good, seed 1", "1 run"]
    assert flexrec("tag", run, "good", "--remove")[0] == "seed 1\n"
    assert "has no tag 'good'" in fails("tag", run, "good", "--remove")
    assert "--remove takes a tag" in flexrec("tag", run, "--remove", code=2)[1]


def test_a_folder_is_replayed(exp: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        for lr in (0.1, 0.2):
            with Recorder(tmp_path / "more" / f"{lr}-{seed}.h5", config={"lr": lr}) as rec:
                for step in range(3):
                    rec.add(train_loss=lr + seed)
                    rec.log(step)
    more, saved = tmp_path / "more", tmp_path / "env.json"
    asked = ("replay", more, "--preset", "loss", "--save", saved, "--force")
    out, error = flexrec(*asked, "--group", "config.lr", "--band", "minmax")
    assert (
        out.splitlines()[0]
        == "Loss: lr=0.1 train (n=2, minmax), lr=0.2 train (n=2, minmax) (6 points)"
    )
    assert error == f"flexrec: 4 runs of {more}\n"
    (window,) = json.loads(saved.read_text())["jsons"].values()
    drawn = window["content"]["data"]
    assert [trace.get("fill") for trace in drawn] == [None, "tonexty", None] * 2
    assert [trace["y"][0] for trace in drawn[:3]] == pytest.approx([0.1, 1.1, 0.6])
    out, _ = flexrec(*asked, "--where", "config.lr < 0.15")
    assert out.splitlines()[0] == "Loss: 0.1-0 train, 0.1-1 train (6 points)"
    out, _ = flexrec(*asked, "--best", "train_loss.min", "--top", 1)
    assert out.splitlines()[0] == "Loss: 0.1-0 train (12 points)"
    flexrec(*asked, "--color", "config.lr")
    (window,) = json.loads(saved.read_text())["jsons"].values()
    assert len({trace["line"]["color"] for trace in window["content"]["data"]}) == 2


def test_the_page_of_a_single_group_tells_of_its_runs(exp: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    flexrec("replay", exp, "--group", "config.name", "--preset", "loss", "--html", out)
    (group,) = json.loads(out.read_text().partition('id="data-runs">')[2].partition("</script>")[0])
    assert (group["about"]["runs"], group["config"]["name"]) == ("3", "=1+1")
    assert len(group["step"]) == len(group["at"]) > 0


def test_a_page_of_groups_is_written_without_what_cannot_be_read(exp: Path, tmp_path: Path) -> None:
    data = (exp / "lr0.2.h5").read_bytes()
    half = len(data) // 2
    for name in "abcd":  # their summaries are whole, and say to which group they belong
        (exp / f"{name}.h5").write_bytes(data[:half] + bytes(len(data) - half))
    out = tmp_path / "page.html"
    how = ("--group", "config.lr", "--preset", "loss", "--html", out)
    said = flexrec("replay", exp, *how, code=1)[1]
    assert out.exists()
    assert "flexrec: 1 more run cannot be read" in said


@pytest.mark.parametrize("how", [(), ("--group", "state"), ("--best", "seconds")])
def test_a_folder_of_which_nothing_can_be_read(
    exp: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    folder, out = tmp_path / "folder", tmp_path / "page.html"
    folder.mkdir()
    data = (exp / "lr0.2.h5").read_bytes()
    half = len(data) // 2  # the summary is whole
    (folder / "a.h5").write_bytes(data[:half] + bytes(len(data) - half))

    def refused() -> str:
        return flexrec("replay", folder, *how, "--preset", "loss", "--html", out, code=2)[1]

    said = refused().splitlines()
    assert said[1].startswith(f"flexrec: 1 run cannot be read: {folder}/a.h5 is damaged: ")
    (folder / "b.h5").write_bytes(data[:half] + bytes(len(data) - half))
    with Recorder(folder / "c.h5") as rec:
        rec.add(other=1.0)
    said = refused().splitlines()
    assert "c.h5 has none of the keys" in said[1]
    assert f"; 2 runs cannot be read: {folder}/a.h5 is damaged: " in said[1]
    assert not out.exists()


def test_the_best_run_has_no_line_in_a_plot(exp: Path, tmp_path: Path) -> None:
    with Recorder(exp / "other.h5") as rec:
        rec.add(test_acc=1.0)
    asked = ("replay", exp, "--every", 1, "-k", "*_loss", "-k", "*_acc", "--html")
    out, _ = flexrec(*asked, tmp_path / "page.html", "--best", "test_acc.max", "--top", 1)
    assert sorted(out.splitlines()[:2]) == ["Accuracy: other test (4 points)", "Loss (3 points)"]


def test_what_replaying_a_folder_refuses(exp: Path, tmp_path: Path) -> None:
    def refused(*options: object) -> str:
        return flexrec("replay", exp, "--save", tmp_path / "e.json", *options, code=2)[1]

    assert "--band does nothing without --group" in refused("--band", "sem")
    assert "--top does nothing without --best" in refused("--top", 3)
    assert "--follow does nothing with a folder" in refused("--follow")
    assert "no run has a column 'config.l'" in refused("--group", "config.l")
    assert "a word or an operator is missing in it" in refused("--where", "config.lr <")
    assert "a word or an operator is missing in it" in refused("--where", "config.lr < 0,1")
    assert "there is no band 'x'" in refused("--group", "config.lr", "--band", "x")
    said = refused("--where", "config.lr > 5")
    assert said == "flexrec: no run was chosen: the expression fits none of 3 runs\n"
    (tmp_path / "empty").mkdir()
    said = flexrec("replay", tmp_path / "empty", "--html", tmp_path / "e.html", code=2)[1]
    assert said == "flexrec: no run was chosen: there is no recording in these places\n"
    assert not (tmp_path / "e.json").exists()
    assert not (tmp_path / "e.html").exists()
