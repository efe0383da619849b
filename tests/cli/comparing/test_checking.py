"""`flexrec check`, run as a user runs it; and visdom showing goldens and differences."""

import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from flexrec.cli import main
from flexrec.recorder import Recorder
from flexrec.replay import compare, snapshot
from flexrec.replay.golden.check import check
from flexrec.replay.golden.snapshot import read_golden, write_golden
from flexrec.replay.golden.visual import messages, show_in_visdom
from flexrec.replay.server.server import Server, start_server
from flexrec.replay.sinks.http import Connection
from flexrec.replay.sinks.visdom import VisdomSink
from support.golden_cases import BASE, MUTATIONS, feed
from support.window_cases import WINDOWS

FLEXREC = Path(sys.executable).with_name("flexrec")


def flexrec_check(*arguments: object, code: int) -> tuple[str, str]:
    """Run the command in this process; return what it printed, and what it complained of."""
    out, error = io.StringIO(), io.StringIO()
    with (
        mock.patch("sys.argv", ["flexrec", "check", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert (ended.value.code or 0) == code, out.getvalue() + error.getvalue()
    return out.getvalue(), error.getvalue()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recording, and one of the same run with another loss."""
    folder = tmp_path_factory.mktemp("runs")
    feed(folder / "run.h5")
    feed(folder / "bent.h5", factor=1.25)
    return folder / "run.h5", folder / "bent.h5"


@pytest.fixture
def golden(runs: tuple[Path, Path], tmp_path: Path) -> Path:
    """A golden of the first."""
    path = tmp_path / "g.json"
    out, error = flexrec_check(runs[0], "-p", "loss", "--golden", path, "--update", code=0)
    assert (out, error) == (f"{path}: written, 1 window\n", "")
    return path


def test_exit_codes_are_those_of_diff(runs: tuple[Path, Path], golden: Path) -> None:
    run, bent = runs
    out, error = flexrec_check(run, "-p", "loss", "-g", golden, code=0)
    assert (out, error) == (
        f"{golden}: equal: 1 window, 2 traces, 8 points (rtol 1e-09, atol 0)\n",
        "",
    )
    out, error = flexrec_check(bent, "-p", "loss", "-g", golden, code=1)
    kept = golden.with_name("g.obtained.json")
    assert error == ""
    assert out.startswith(f"{golden}: 1 difference in 1 window (rtol 1e-09, atol 0)\n")
    assert "  values    trace train, y: 4 of 4 points differ, first at index 0 (x = 0)" in out
    assert f"obtained: {kept} (--update accepts it)" in out
    assert kept.exists()
    assert "8 points" in flexrec_check(bent, "-p", "loss", "-g", golden, "--rtol", 0.3, code=0)[0]
    assert not kept.exists()
    flexrec_check(bent, "-p", "loss", "-g", golden, "--atol", 0.1, code=0)
    flexrec_check(bent, "-p", "loss", "-g", golden, "--atol", 0.01, code=1)
    assert "written" in flexrec_check(bent, "-p", "loss", "-g", golden, "--update", code=0)[0]
    flexrec_check(bent, "-p", "loss", "-g", golden, code=0)


def test_what_cannot_be_compared_is_one_line_and_code_2(
    runs: tuple[Path, Path], golden: Path, tmp_path: Path
) -> None:
    run, missing = runs[0], tmp_path / "none.json"
    not_golden = tmp_path / "not.json"
    not_golden.write_text("[]")
    for arguments, message in (
        ((run, "-p", "loss", "-g", missing), f"there is no golden {missing}; --update writes it"),
        ((run, "-p", "loss", "-g", not_golden, "--update"), f"{not_golden} is no golden"),
        ((run, "-p", "loss", "-g", tmp_path), "cannot read the golden"),
        ((run, "-p", "los", "-g", golden), "did you mean 'loss'?"),
        ((tmp_path / "none.h5", "-p", "loss", "-g", golden), "none.h5"),
        ((run, "-p", "loss", "-g", golden / "x.json", "--update"), "cannot write"),
        ((run, "-p", "loss", "-g", golden, "--rtol", "inf"), "rtol must be a number"),
    ):
        out, error = flexrec_check(*arguments, code=2)
        assert out == ""
        assert len(error.splitlines()) == 1, error
        assert message in error
    assert not missing.exists()


def test_the_command_ends_with_the_code(runs: tuple[Path, Path], golden: Path) -> None:
    for run, code in zip(runs, (0, 1), strict=True):
        done = subprocess.run(
            [FLEXREC, "check", run, "-p", "loss", "--golden", golden], check=False
        )
        assert done.returncode == code


def test_every_phases_and_config_as_in_replay(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run, path = runs[0], tmp_path / "g.json"
    common = (run, "--phases", "train", "--every", 5, "-g", path)
    flexrec_check(*common, "-p", "loss", "--update", code=0)
    saved = tmp_path / "saved.json"
    subprocess.run(
        [
            *(FLEXREC, "replay", run, "-p", "loss", "--phases", "train", "--every", "5"),
            *("--max-points", "0", "--save", saved),
        ],
        check=True,
        capture_output=True,
    )
    assert path.read_bytes() == saved.read_bytes()
    config = tmp_path / "plots.toml"
    config.write_text('preset = "loss"')
    flexrec_check(*common, "--config", config, code=0)
    flexrec_check(run, "-g", path, "--config", config, code=1)


def test_what_is_left_out_is_a_difference(tmp_path: Path) -> None:
    path, golden = tmp_path / "odd.h5", tmp_path / "g.json"
    for value in (0.5, "a text"):
        with Recorder(path, facts=False, mode="w") as rec:
            rec.add(train_loss=1.0, lr=0.5)
            rec.log(0)
            rec.add(train_loss=2.0, lr=value)
            rec.log(1)
        if value == 0.5:  # the golden has the very windows that are drawn of the other
            flexrec_check(path, "-p", "loss+lr", "-g", golden, "--every", 5, "--update", code=0)
    arguments = (path, "-p", "loss+lr", "--phases", "train", "-g", golden, "--every", 5)
    out, error = flexrec_check(*arguments, code=1)
    assert out.startswith(f"{golden}: 1 difference in 0 windows")
    assert "as a whole:\n  left out  'lr' at step 0: LastValueMeter was given the text" in out
    assert error.count("flexrec: left out: 'lr' at step 0") == 1
    (told,) = json.loads(flexrec_check(*arguments, "--json", code=1)[0])["differences"]
    assert told["kind"] == "left out"
    before = golden.read_bytes()
    assert flexrec_check(*arguments, "--update", code=1)[0].count("written") == 0
    assert golden.read_bytes() == before
    golden.unlink()
    assert "written" in flexrec_check(*arguments, "--update", code=1)[0]
    flexrec_check(*arguments, "-k", "train_*", "--update", code=0)
    flexrec_check(*arguments, "-k", "train_*", code=0)


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000])
def test_a_golden_that_is_nested_too_deeply_is_none(
    deep: str, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "g.json").write_text(deep)
    _, error = flexrec_check(runs[0], "-p", "loss", "-g", tmp_path / "g.json", code=2)
    assert error.startswith(f"flexrec: {tmp_path / 'g.json'} is no golden, or a damaged one")
    assert error.count("\n") == 1


def test_values_after_the_last_log_are_told_of(tmp_path: Path) -> None:
    """Also where no preset was chosen."""
    path, golden = tmp_path / "run.h5", tmp_path / "golden.json"
    with Recorder(path) as rec:
        rec.add({"loss": 1.0})
        rec.log(epoch=0)
        rec.add({"loss": 2.0})
    flexrec_check(path, "--golden", golden, "--update", code=0)
    _, error = flexrec_check(path, "--golden", golden, code=0)
    assert "1 value after the last log is not plotted" in error


def test_key_chooses_what_is_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    path, preset = tmp_path / "one.json", ("-p", "loss", "-k", "train_*")
    flexrec_check(runs[0], *preset, "-g", path, "--update", code=0)
    (window,) = read_golden(path)["jsons"].values()
    assert [trace["name"] for trace in window["content"]["data"]] == ["train"]
    flexrec_check(runs[0], *preset, "-g", path, code=0)
    flexrec_check(runs[0], "-p", "loss", "-g", path, code=1)


def test_json_is_for_machines(runs: tuple[Path, Path], golden: Path) -> None:
    run, bent = runs
    show = ("--json", "--show", "--port", free_port())
    out, error = flexrec_check(bent, "-p", "loss", "-g", golden, *show, code=1)
    found = json.loads(out)
    assert "o obtained" in error  # the text plot is not for them
    assert found["golden"] == str(golden)
    assert (found["equal"], found["windows"], found["traces"], found["points"]) == (False, 1, 2, 8)
    (difference,) = found["differences"]
    assert {"kind": "values", "trace": "train", "count": 4}.items() <= difference.items()
    assert difference["max_rel"] == pytest.approx(0.25)
    full = json.loads(
        flexrec_check(bent, "-p", "loss", "-g", golden, "--json", "--full", code=1)[0]
    )
    assert [point["index"] for point in full["differences"][0]["points"]] == [[0], [1], [2], [3]]
    out, _ = flexrec_check(run, "-p", "loss", "-g", golden, "--json", code=0)
    assert json.loads(out) | {"rtol": 0} == {
        "golden": str(golden), "obtained": None, "written": False, "equal": True, "rtol": 0,
        "atol": 0.0, "windows": 1, "traces": 2, "points": 8, "differences": [],
    }  # fmt: skip


def test_points_and_digits_are_stated_and_kept_to(tmp_path: Path) -> None:
    run, path = tmp_path / "long.h5", tmp_path / "g.json"
    with Recorder(run) as rec:
        for step in range(3000):
            rec.add(train_loss=1 / (step + 3))
            rec.step()
    options = (run, "-p", "loss", "--phases", "train", "-g", path)
    flexrec_check(*options, "--update", "--max-points", 100, "--digits", 5, code=0)
    assert read_golden(path)["flexrec"] == {"digits": 5, "max_points": 100}
    assert path.stat().st_size < 5000
    flexrec_check(*options, code=0)
    out, _ = flexrec_check(*options, "--max-points", 0, code=1)
    assert "as a whole:\n  layout    max_points: nothing, golden 100" in out


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_show_without_visdom_draws_text(runs: tuple[Path, Path], golden: Path) -> None:
    show = ("-p", "loss", "-g", golden, "--show", "--port", free_port())
    out, error = flexrec_check(runs[1], *show, code=1)
    assert "nobody listens" in error
    assert "drawn as text instead" in error
    assert "loss, train\n" in out
    assert ".. golden   oo obtained\n" in out
    assert "obtained - golden\n" in out
    assert "obtained - golden" in out
    assert flexrec_check(runs[0], *show, code=0)[1] == ""  # nothing differs: nothing to show


def test_show_draws_side_by_side_in_visdom(
    runs: tuple[Path, Path], golden: Path, visdom_server: Server
) -> None:
    port = visdom_server.port
    options = ("-p", "loss", "-g", golden, "--show", "--port", port, "--env", "check_cli")
    out, _ = flexrec_check(runs[1], *options, code=1)
    assert f"4 windows in http://localhost:{port}/env/check_cli" in out
    sink = VisdomSink(port=port, env="check_cli")
    windows = sink.windows()
    sink.close()
    assert sorted(windows) == [
        "check/loss/difference", "check/loss/golden", "check/loss/obtained", "check/report/check",
    ]  # fmt: skip
    assert "4 of 4 points differ" in windows["check/report/check"]["content"]
    content = windows["check/loss/difference"]["content"]
    assert [trace["name"] for trace in content["data"]] == [
        "golden train", "obtained train", "difference train",
    ]  # fmt: skip
    data = {trace["name"]: trace for trace in content["data"]}
    residual = data["difference train"]
    assert residual["yaxis"] == "y2"
    assert residual["y"] == [
        b - a for a, b in zip(data["golden train"]["y"], data["obtained train"]["y"], strict=True)
    ]
    assert content["layout"]["yaxis"]["domain"][0] > content["layout"]["yaxis2"]["domain"][1]


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_can_be_shown(name: str, visdom_server: Server) -> None:
    """visdom takes what is drawn of it, and another check's windows go."""
    golden, obtained = snapshot(BASE.values()), snapshot(MUTATIONS[name][0].values())
    drawn = messages(golden, obtained, compare(golden, obtained))
    assert len(drawn) >= 2 or MUTATIONS[name][1] == "reordered"
    url = show_in_visdom(
        drawn, server="http://127.0.0.1", port=visdom_server.port, base_url="", env="mutants"
    )
    assert url == f"{visdom_server.url}/env/mutants"
    sink = VisdomSink(port=visdom_server.port, env="mutants")
    assert sorted(sink.windows()) == sorted(message["win"] for message in drawn)
    sink.close()


def test_a_matrix_and_a_picture_have_their_difference_drawn() -> None:
    for name, cell, value in (("a cell", (1, 2), 0.5), ("a pixel", (1, 3), 9.0)):
        golden, obtained = snapshot(BASE.values()), snapshot(MUTATIONS[name][0].values())
        (drawn,) = (
            message
            for message in messages(golden, obtained, compare(golden, obtained))
            if message["win"].endswith("/difference")
        )
        (trace,) = drawn["data"]
        cells = {(i, k): v for i, row in enumerate(trace["z"]) for k, v in enumerate(row) if v}
        assert cells == {cell: value}
        assert drawn["layout"]["yaxis"]["autorange"] == "reversed"  # the first row is on top


# ---------------------------------------------------------------------- a golden is visdom's file


def on_server(sink: VisdomSink, env: str) -> dict[str, Any]:
    return {"jsons": sink.windows(env), "reload": {}}


def test_visdom_shows_a_golden_in_its_folder(tmp_path: Path) -> None:
    thinned = snapshot(WINDOWS, max_points=100, digits=9)
    write_golden(tmp_path / "envs" / "thinned.json", thinned)
    write_golden(tmp_path / "plain.json", snapshot(WINDOWS))
    shutil.copy(tmp_path / "plain.json", tmp_path / "envs")
    with start_server(env_path=tmp_path / "envs") as server:
        sink = VisdomSink(server=server.url)
        assert {"plain", "thinned"} <= set(sink.environments())
        plain = on_server(sink, "plain")
        assert compare(snapshot(WINDOWS), plain, rtol=0.0)
        stated = {"flexrec": thinned["flexrec"]}
        assert compare(thinned, on_server(sink, "thinned") | stated, rtol=0.0)
        # What visdom saves is a golden too.
        sink.show(BASE.values())  # type: ignore[arg-type]
        sink.save()
        sink.close()
    assert check(BASE.values(), server.env_path / "main.json").comparison


@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")
def test_visdom_takes_a_golden_that_is_uploaded(tmp_path: Path, visdom_server: Server) -> None:
    write_golden(tmp_path / "g.json", snapshot(WINDOWS))
    golden = read_golden(tmp_path / "g.json")
    connection = Connection("127.0.0.1", visdom_server.port)
    # What visdom's client sends for set_window_data(…, win=None, env="golden").
    connection.post("win_data", {"win": None, "eid": "golden", "data": json.dumps(golden["jsons"])})
    connection.close()
    sink = VisdomSink(port=visdom_server.port)
    assert compare(golden, on_server(sink, "golden"), rtol=0.0)
    sink.close()
