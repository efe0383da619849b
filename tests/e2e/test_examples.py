"""The examples run, and show what they say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flexrec.recorder import Recording
from flexrec.replay import load_toml, play
from flexrec.replay.server.server import Server
from flexrec.replay.sinks.visdom import VisdomSink

pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[2]


def example(name: str, *arguments: object) -> str:
    """Run an example as a user would."""
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of the digits example."""
    path = tmp_path_factory.mktemp("digits") / "run.h5"
    out = example("digits.py", "--out", path, "--epochs", 3)
    assert f"flexrec replay {path} --preset loss+MSE" in out
    return path


def test_digits_learns_and_records(digits: Path) -> None:
    with Recording(digits) as run:
        loss = run["train_loss"].value
        assert len(loss) == 3 * 45
        assert sum(loss[-45:]) < 0.5 * sum(loss[:45])
        assert run.marks.x.tolist() == [0.0, 1.0, 2.0]
        assert {"2/grad_in/mean", "4/weights/std"} <= set(run)
        assert run["0/weights/std"].step.tolist() == list(range(0, 135, 5))


def test_the_definitions_file_draws_the_digits(digits: Path) -> None:
    with Recording(digits) as run:
        windows = {w.win: w for w in play(run, load_toml(ROOT / "examples" / "plots.toml"))}
    assert sorted(windows) == ["acc", "confusion", "gradients", "loss", "spread"]
    assert windows["confusion"].traces[0].y.shape == (10, 10)
    assert windows["confusion"].traces[0].y.sum(axis=1) == pytest.approx([1.0] * 10)
    assert {"0 Linear", "2 Linear", "4 Linear"} <= {
        trace.name for trace in windows["gradients"].traces
    }
    assert windows["acc"].traces[1].y[-1] > 80


def test_live_plots_and_records(visdom_server: Server, tmp_path: Path) -> None:
    out = tmp_path / "live.h5"
    example("live.py", "--port", visdom_server.port, "--env", "live_test", "--out", out)
    sink = VisdomSink(port=visdom_server.port)
    loss = sink.windows("live_test")["loss"]
    assert loss["content"]["data"][0]["x"] == list(range(10))
    assert sorted(sink.windows("live_test_layers")) == ["0", "1", "2"]
    with Recording(out) as run:
        assert run.keys() == ["train_loss", "train_mse"]


def test_the_demo(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        [sys.executable, "examples/demo.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("Loss ", "MSE "))]
    assert len(rows) == 2
    assert done.stderr == ""
    page = done.stdout.splitlines()[-1].rpartition(" ")[2]
    assert page == (tmp_path / "demo" / "run.html").as_uri()
    assert 'content="flexrec"' in (tmp_path / "demo" / "run.html").read_text(encoding="utf-8")
    saved = json.loads((tmp_path / "demo" / "visdom" / "demo.json").read_text())
    assert {"loss", "mse", "acc"} <= set(saved["jsons"])
    with Recording(tmp_path / "demo" / "run.h5") as run:
        assert run.complete
