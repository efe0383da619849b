"""The command line, run as a user runs it: output, errors, exit codes."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flexrec.recorder import MeterError, Recorder, Recording
from flexrec.replay import define, play
from flexrec.replay.server.server import Server
from flexrec.replay.sinks.visdom import VisdomSink
from support.commands import FLEXREC, fails, flexrec


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of three epochs with ten steps each."""
    path = tmp_path_factory.mktemp("cli") / "run.h5"
    rng = np.random.default_rng(0)
    with Recorder(path, config={"lr": 0.1}) as rec:
        for epoch in range(3):
            for step in range(10):
                output, target = rng.normal(size=(4, 3)), rng.integers(0, 3, 4)
                rec.add(train_loss=1.0 / (10 * epoch + step + 1), train_acc=(output, target))
                rec.add({"0/weights/mean": float(step), "0/weights/std": 1.0})
                rec.step()
            rec.add(test_loss=float(epoch))
            rec.log(epoch)
    return path


def test_replay_into_a_server(run: Path, visdom_server: Server) -> None:
    out, error = flexrec(
        *("replay", run, "--preset", "loss+acc", "--port", visdom_server.port, "--env", "cli")
    )
    assert "Loss: train, test (6 points)" in out
    assert f"2 windows in http://localhost:{visdom_server.port}/env/cli" in out
    assert not error
    windows = VisdomSink(port=visdom_server.port).windows("cli")
    assert windows["loss"]["content"]["data"][1]["y"] == [0.0, 1.0, 2.0]


def test_replay_draws_the_keys_that_are_asked_for(run: Path, tmp_path: Path) -> None:
    saved = tmp_path / "env.json"
    out, error = flexrec(
        *("replay", run, "--preset", "loss+layers", "-k", "train_*", "-k", "*/std"),
        *("--save", saved),
    )
    assert out.splitlines() == [
        "Loss: train (3 points)",
        "0: weights std (3 points)",
        f"2 windows in {saved}",
    ]
    assert not error


def test_replay_without_a_preset_draws_what_is_there(tmp_path: Path) -> None:
    path, saved = tmp_path / "run.h5", tmp_path / "env.json"
    with Recorder(path, facts=False) as rec:
        for epoch in range(3):
            rec.add({"loss/train": 1.0 + epoch, "dev_loss": 2.0, "odd": ("a", "b")})
            rec.add({"0/activations": (np.eye(4), np.arange(4) % 2)})
            rec.log(epoch=epoch)
    out, error = flexrec("replay", path, "--save", saved)
    assert out.splitlines()[:2] == ["Loss: train (3 points)", "Dev_loss (3 points)"]
    assert f"{path}: not drawn: odd; --config draws what you define" in error
    assert f"{path}: not drawn: 0/activations; --preset auto+infoplane draws them" in error
    out, _ = flexrec("replay", path, "-p", "auto+infoplane", "--save", saved, "--force")
    assert "Information plane: 0 (3 points)" in out
    out, error = flexrec("replay", path, "--phases", "train,dev", "--save", saved, "--force")
    assert out.splitlines()[0] == "Loss: train, dev (6 points)"
    _, error = flexrec("replay", path, "-p", "loss", "--save", saved, "--force")
    assert f"{path}: not drawn: dev_loss; --phases names other phases" in error


def test_lines_are_smoothed_and_logarithmic_without_a_file(run: Path, tmp_path: Path) -> None:
    saved, golden = tmp_path / "env.json", tmp_path / "golden.json"
    options = ("-p", "loss", "--smooth", 0.6, "--log-y")
    assert "Loss: train, test (" in flexrec("replay", run, *options, "--save", saved)[0]
    content = json.loads(saved.read_text())["jsons"]["loss"]["content"]
    assert content["layout"]["yaxis"]["type"] == "log"
    names = [(trace["name"], trace.get("opacity")) for trace in content["data"]]
    lines = [("train", 0.3), ("train", None), ("test", 0.3), ("test", None)]
    assert names == [*lines, ("exactly 0", None)]
    flexrec("check", run, *options, "-g", golden, "--update")
    flexrec("check", run, *options, "-g", golden)
    with pytest.raises(AssertionError):
        flexrec("check", run, "-p", "loss", "-g", golden)
    with pytest.raises(AssertionError, match="'--smooth'"):
        flexrec("replay", run, *options, "--smooth", 1)


def test_lines_are_drawn_over_steps_or_times(run: Path, tmp_path: Path) -> None:
    def axis(x: str) -> dict[str, Any]:
        saved = tmp_path / f"{x}.json"
        flexrec("replay", run, "-p", "loss", "--x", x, "--save", saved)
        found: dict[str, Any] = json.loads(saved.read_text())["jsons"]["loss"]["content"]["layout"][
            "xaxis"
        ]
        return found

    assert axis("step")["title"] == "step"
    assert axis("relative")["title"] == "seconds since the start"
    assert axis("time")["type"] == "date"
    with pytest.raises(
        AssertionError, match="x is one of mark, step, time, relative, not 'epochs'"
    ):
        axis("epochs")


def test_replay_says_why_there_is_nothing_to_draw(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "late.h5"
    with Recorder(path, facts=False) as rec:
        rec.log(0)
        rec.add(train_loss=0.5, test_loss=0.5)
    _, error = flexrec("replay", path, "--preset", "loss", "--save", tmp_path / "env.json")
    assert "nothing to draw: no value of these keys came before a log mark" in error


def test_replay_into_a_file(run: Path, tmp_path: Path) -> None:
    saved = tmp_path / "env.json"
    out, _ = flexrec("replay", run, "--preset", "loss", "--save", saved)
    assert f"1 window in {saved}" in out
    window = json.loads(saved.read_text())["jsons"]["loss"]
    assert [trace["name"] for trace in window["content"]["data"]] == ["train", "test"]
    assert window["content"]["data"][0]["x"] == [0, 1, 2]


@pytest.mark.parametrize(("option", "name"), [("--save", "x.json"), ("--html", "x.html")])
def test_where_a_file_cannot_be_written_is_told_before_the_work(
    run: Path, tmp_path: Path, option: str, name: str
) -> None:
    command = ("replay", "--preset", "loss", option)
    for folder, reason in (
        (tmp_path / "none", "No such file or directory"),
        (run, "Not a directory"),
        (Path("/proc"), "No such file or directory"),
    ):
        # The recording, which is not there either, was not looked at.
        line = fails(*command, folder / name, tmp_path / "none.h5")
        assert line == f"cannot write {folder / name}: {reason}"
    (tmp_path / name).mkdir()
    assert fails(*command, tmp_path / name, run) == (
        f"{tmp_path / name} is a folder, not a regular file: "
        "it is left as it is; choose another path"
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("option", "name"), [("--save", "x.json"), ("--html", "x.html")])
def test_a_full_disk_is_told_in_one_line(run: Path, tmp_path: Path, option: str, name: str) -> None:
    out = tmp_path / name
    script = f"ulimit -f 1; '{FLEXREC}' replay '{run}' -p layers+loss {option} '{out}'"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"flexrec: cannot write {out}: File too large"
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_called_html(run: Path, tmp_path: Path) -> None:
    assert fails("replay", run, "-p", "loss", "--html", tmp_path / "x.png") == (
        f"{tmp_path / 'x.png'}: --html writes a page, NAME.html, not .png"
    )
    assert list(tmp_path.iterdir()) == []
    for name in ("x.HTM", "x"):
        flexrec("replay", run, "-p", "loss", "--html", tmp_path / name)
        assert (tmp_path / name).read_text().startswith("<!")


def test_every_phases_and_config(run: Path, tmp_path: Path) -> None:
    saved = tmp_path / "env.json"
    _, error = flexrec(
        *("replay", run, "-p", "loss", "--phases", "train", "--every", 5, "--save", saved)
    )
    assert error == ""
    (trace,) = json.loads(saved.read_text())["jsons"]["loss"]["content"]["data"]
    assert trace["x"] == [0, 5, 10, 15, 20, 25]
    assert trace["y"][1] == pytest.approx(np.mean([1 / n for n in range(6, 11)]), rel=1e-12)
    config = tmp_path / "plots.toml"
    config.write_text(
        'preset = "loss"\nphases = ["test"]\n[plots.w]\ntype = "line"\n'
        '[meters."*/weights/mean"]\ntype = "LastValueMeter"\ntarget = "w"\nlabel = "{layer}"\n'
    )
    flexrec("replay", run, "--config", config, "--save", saved, "--force")
    windows = json.loads(saved.read_text())["jsons"]
    assert sorted(windows) == ["loss", "w"]
    assert [t["name"] for t in windows["w"]["content"]["data"]] == ["0"]


def test_a_killed_run_is_replayed_and_said(tmp_path: Path) -> None:
    path = tmp_path / "killed.h5"
    code = (
        "import os, signal, sys; from flexrec.recorder import Recorder\n"
        "rec = Recorder(sys.argv[1])\n"
        "for i in range(3): rec.add(train_loss=i); rec.step(); rec.log(i)\n"
        "rec.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    out, error = flexrec("replay", path, "-p", "loss", "--save", tmp_path / "e.json")
    assert "Loss: train" in out
    assert "the run has not ended, or was killed; it is whole up to step 3" in error
    out, _ = flexrec("show", path)
    assert "the run has not ended" in out


def test_show(run: Path) -> None:
    out, _ = flexrec("show", run)
    assert "config: {'lr': 0.1}" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["train_loss"][1:4] == ["number", "30", "0–29"]
    assert float(rows["train_loss"][5]) == pytest.approx(1 / 30, rel=1e-5)
    assert float(rows["train_loss"][6]) == 1.0
    assert "(float64:2, int64:1)" in out
    table, _ = flexrec("show", run, "--model")
    assert "| 0        |  9.0000   1.0000 |" in table


def test_show_counts_what_is_not_finite(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        for loss in (1.0, float("nan"), 3.0, float("inf")):
            rec.add(loss=loss)
    out, _ = flexrec("show", tmp_path / "run.h5")
    row = out.splitlines()[-1].split()
    assert row[:6] == ["loss", "number", "4,", "2", "not", "finite"]
    assert row[-4:-1] == ["1", "3", "2"]


def test_show_of_chosen_keys(run: Path) -> None:
    out, _ = flexrec("show", run, "-k", "train_*", "-k", "0/weights/std")
    assert [line.split()[0] for line in out.splitlines()[-3:]] == [
        "train_loss",
        "train_acc",
        "0/weights/std",
    ]
    assert "0/weights/mean" not in out
    assert "Weights" in flexrec("show", run, "--model", "-k", "*/std")[0]
    assert "has no key that fits 'acc'; there are train_loss, " in fails("show", run, "-k", "acc")
    assert "leave --key out" in flexrec("show", run, "-k", "a", "--plot", "a", code=2)[1]


def test_show_of_very_many_keys_lists_those_with_the_fewest_slashes(tmp_path: Path) -> None:
    with Recorder(tmp_path / "many.h5", facts=False) as rec:
        rec.add({f"layer{i}/mean": 1.0 for i in range(1003)})
        rec.add(loss=1.0)
    lines = flexrec("show", tmp_path / "many.h5")[0].splitlines()
    assert len(lines) == 2 + 2 + 1000 + 1
    assert lines[-2].startswith("loss ")
    assert lines[-1] == "and 4 more keys: -k PATTERN chooses keys, -k '*' shows all"
    assert len(flexrec("show", tmp_path / "many.h5", "-k", "*")[0].splitlines()) == 4 + 1004
    assert len(json.loads(flexrec("show", tmp_path / "many.h5", "--json")[0])["keys"]) == 1004


def test_show_names_a_key_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path) as rec:
        for i in range(1000):
            rec.add(loss=np.sin(i), other=i)
    with h5py.File(path) as file:
        at = file["series/other/value"].id.get_chunk_info(0).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[at + 10 : at + 60] = bytes(50)
    path.write_bytes(damaged)
    line = fails("show", path)
    assert f"{path} is damaged: " in line
    assert line.endswith(": key 'other'; -k chooses others")
    assert "\nloss   number" in flexrec("show", path, "-k", "loss")[0]


def test_quantiles_and_many_layers_are_drawn_as_text(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False) as rec:
        for epoch in range(3):
            for layer in range(13):
                rec.add({f"{layer}/grad_weights/norm": 1.0 + layer})
            rec.add({"0/weights/histogram": np.arange(65.0) * epoch})
            rec.log(epoch)
    text, _ = flexrec("show", path, "--plot", "weights+health")
    assert "least" in text
    assert "greatest" in text
    assert "Gradient norm" in text
    assert "not shown as text" not in text


def test_what_is_there_and_no_number_is_not_drawn_as_text(run: Path) -> None:
    assert fails("show", run, "--plot", "train_acc") == (
        f"{run}: train_acc is (float64:2, int64:1): only numbers can be drawn as text"
    )
    assert "did you mean 'train_loss'?" in fails("show", run, "--plot", "train_los")


def test_many_keys_are_not_all_listed(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path) as rec:
        rec.add({f"{k}/weights/mean": 1.0 for k in range(30)})
    there = ", ".join(f"{k}/weights/mean" for k in range(10))
    for command in (("export", path, "-k", "a"), ("replay", path, "-p", "loss")):
        assert fails(*command).endswith(f"; there are {there} and 20 more")


def test_names_from_a_recording_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "escapes.h5"
    with Recorder(path) as rec:
        for value in (1.0, 2.0, 3.0):
            rec.add({"loss\x1b[2J\x07": value})
            rec.step()
    for command in (("show",), ("show", "--plot", "loss*")):
        out, _ = flexrec(*command, path)
        assert "loss\\x1b[2J\\x07" in out
        assert "\x1b[2J" not in out


def test_show_has_a_line_for_a_key_whatever_is_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "breaks.h5"
    with Recorder(path) as rec:
        rec.add({"a\nb": 1.0, "c\td": 2.0, "größe": (1.0, "x")})
    head, rule, *rows = flexrec("show", path)[0].splitlines()[-5:]
    assert [row.split()[0] for row in rows] == ["a\\nb", "c\\td", "größe"]
    assert len({row.index(row.split()[1]) for row in (head, rule, *rows)}) == 1


def test_lists_and_docs() -> None:
    assert "loss" in flexrec("presets")[0].split()
    assert "MSE: mean squared error" in flexrec("presets", "Loss+mse")[0]
    assert "AverageValueMeter" in flexrec("meters")[0].split()
    assert "mean" in flexrec("meters", "averagevaluemeter")[0]
    assert "heatmap" in flexrec("plots")[0].split()
    assert "opts" in flexrec("plots", "LINE")[0]
    assert flexrec("--version")[0].startswith("flexrec 0.")


def test_wrong_names_are_told_with_the_nearest(run: Path, tmp_path: Path) -> None:
    assert fails("replay", run, "--preset", "los+MSE") == (
        "no preset 'los'; did you mean 'loss'? (flexrec presets lists them)"
    )
    assert fails("replay", run, "--preset", "loss+bogus") == (
        "no preset 'bogus' (flexrec presets lists them)"
    )
    assert "did you mean 'ConfusionMeter'?" in fails("meters", "Confusionmetr")
    assert "did you mean 'line'?" in fails("plots", "lin")
    config = tmp_path / "plots.toml"
    assert f"cannot read {config}" in fails("replay", run, "-c", config)
    for text, message in (
        ("[plots", "is not TOML"),
        ("plots = 3", "plots must be a table, got int"),
        ("[plot.a]", "unknown key 'plot'; did you mean 'plots'?"),
        ("[plots.a]\ntype = 3", "plots.a.type must be a name, got int 3"),
        ("[plots.a]\ntype = 'lin'", "plots.a.type: no plot type 'lin'; did you mean 'line'?"),
        ("[plots.a]\ntype='line'\nopts={titel=1}", "did you mean 'title'?"),
        ("[meters.m]\ntype='MSEMeter'", "meters.m needs a target"),
        ("[meters.m]\ntype='MSEMeter'\ntarget='a'", "meters.m.target: there is no plot 'a'"),
        (
            "[plots.a]\ntype='line'\n[meters.m]\ntype='MSEMetre'\ntarget='a'",
            "did you mean 'MSEMeter'?",
        ),
        (
            "[plots.a]\ntype='line'\n[meters.m]\ntype='MSEMeter'\ntarget='a'\nargs={rot=true}",
            "rot",
        ),
        (
            "[plots.a]\ntype='line'\n[meters.m]\ntype='AverageValueMeter'\ntarget='a'\nfield='var'",
            "meters.m.field: the meter has no 'var', it has mean, std",
        ),
    ):
        config.write_text(text)
        line = fails("replay", run, "-c", config)
        assert line.startswith(str(config)), line
        assert message in line


def test_bad_recordings(run: Path, tmp_path: Path) -> None:
    for command in (("show",), ("replay", "-p", "loss")):
        assert "does not exist" in fails(*command, tmp_path / "none.h5")
        (tmp_path / "text.h5").write_text("text")
        assert "is not an HDF5 file" in fails(*command, tmp_path / "text.h5")
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["a"] = 1
        assert "not a flexrec recording" in fails(*command, tmp_path / "other.h5")
    line = fails("replay", run, "-p", "MSE", "--save", tmp_path / "e.json")
    assert "wanted are train_mse, test_mse; there are train_loss, train_acc" in line
    assert not (tmp_path / "e.json").exists()


@pytest.mark.parametrize("command", ["show", "verify", "replay", "diff", "import", "repair"])
def test_a_path_that_the_system_cannot_look_up_is_told(command: str, tmp_path: Path) -> None:
    """As where a folder on the way may not be searched, which nobody can forbid to root."""
    out = ("-o", tmp_path / "runs") if command == "import" else ()
    said = fails(command, tmp_path / f"{'a' * 300}.h5", *out)
    assert "File name too long" in said or "does not exist" in said
    assert "Errno" not in said


def test_a_meter_fed_the_wrong_shape_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shapes.h5"
    with Recorder(path) as rec:
        rec.step(7)
        rec.add(train_mse=(np.ones((4, 20)), np.ones((4, 3))))
        rec.log(0)
    out, line = flexrec("replay", path, "-p", "MSE", "--save", tmp_path / "e.json", code=1)
    assert out == f"0 windows in {tmp_path / 'e.json'}\n"
    for part in ("'train_mse' at step 7", "MSEMeter", "float64[4, 20]", "float64[4, 3]"):
        assert part in line


@pytest.mark.parametrize(
    ("meter", "value", "why"),
    [
        ("AverageValueMeter", (np.ones(2), np.ones(2)), "it takes a number or an array, or a sum"),
        ("AverageValueMeter", (1.0, np.ones(2)), "it takes a number or an array, or a sum"),
        ("BestValueMeter", (np.ones(2), np.ones(2)), "it takes (value)"),
        ("LastValueMeter", (np.ones(2), np.ones(2)), "it takes (value)"),
        ("MovingAverageValueMeter", (np.ones(2), np.ones(2)), "it takes (value)"),
        ("MSEMeter", 1.0, "it takes (output, target); AverageValueMeter takes a number"),
        ("MSEMeter", "text", "it takes (output, target)"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_a_meter_fed_too_few_or_too_many_values_says_what_it_takes(
    tmp_path: Path, meter: str, value: Any, why: str, plain: bool
) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        rec.step(7)
        rec.add(a=value)
        rec.log()
    args = {"windowsize": 2} if meter.startswith("Moving") else {}
    table = {"type": meter, "target": "p", "args": args}
    definitions = define({"p": {"type": "line"}}, {"a": table})
    with Recording(tmp_path / "run.h5") as run, pytest.raises(MeterError) as raised:
        play(run, definitions, plain=plain, strict=True)
    assert str(raised.value).startswith(f"'a' at step 7: {meter} was given ")
    assert f": {why}" in str(raised.value)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def other_port() -> Iterator[int]:
    """A web server that is not visdom."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *args: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_servers_are_told_apart(run: Path, silent_port: int, other_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    lines = {
        port: fails("replay", run, "-p", "loss", "--phases", "train", "--port", port)
        for port in (free, silent_port, other_port)
    }
    assert len({line.replace(str(port), "") for port, line in lines.items()}) == 3, lines
    assert "not visdom" in lines[other_port]


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys, contextlib, io\n"
        "from flexrec.cli.commands import app\n"
        "sys.argv = ['flexrec', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): app()\n"
        "heavy = {'torch', 'visdom', 'scipy', 'matplotlib', 'h5py', 'numpy', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_show_needs_neither_torch_nor_visdom(run: Path) -> None:
    code = (
        "import sys\nfrom flexrec.cli.showing.contents import recording_text, model_text\n"
        "from pathlib import Path\n"
        "recording_text(Path(sys.argv[1])), model_text(Path(sys.argv[1]))\n"
        "print(sorted({'torch', 'visdom', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_command_and_option_has_help() -> None:
    import typer.main

    from flexrec.cli.commands import app

    group = typer.main.get_command(app)
    commands = dict(getattr(group, "commands"))  # noqa: B009 - click's, whatever typer bundles
    assert {"replay", "show", "presets", "meters", "plots"} <= set(commands)
    commands |= {f"assets {name}": each for name, each in commands["assets"].commands.items()}
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_debug_shows_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [FLEXREC, "--debug", "show", str(tmp_path / "none.h5")],
        capture_output=True,
        text=True,
        env={**os.environ},
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
