"""`flexrec replay`: what is left out, what came too late, and options that do nothing together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flexrec.cli.commands import app
from flexrec.recorder import Recorder
from flexrec.replay import Definitions
from flexrec.replay.player.player import fitting
from support.commands import fails, flexrec

pytestmark = pytest.mark.viewing


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose key `train_confusion` has a target of -100, twice, among healthy values."""
    path = tmp_path_factory.mktemp("odd") / "odd.h5"
    with Recorder(path, facts=False) as rec:
        for epoch in range(3):
            target = np.array([0, 1, -100 if epoch else 1])
            rec.add(train_loss=1.0 / (epoch + 1), train_confusion=(np.eye(3), target))
            rec.add(lr="a text" if epoch == 1 else 0.1)
            rec.log(epoch)
            rec.step()
    return path


@pytest.mark.parametrize("how", ["--save", "--html"])
def test_the_rest_is_drawn_and_what_is_left_out_is_named(
    odd: Path, how: str, tmp_path: Path
) -> None:
    saved = tmp_path / f"e.{'json' if how == '--save' else 'html'}"
    out, error = flexrec("replay", odd, "-p", "loss+confusion+lr", how, saved, code=1)
    assert out.splitlines()[-1] == f"3 windows in {saved}"
    assert "Loss: train (3 points)" in out
    assert "Learning rate: lr (2 points)" in out
    told = [line for line in error.splitlines() if "left out" in line]
    assert len(told) == 2, error
    assert "left out: 'train_confusion' at step 1: ConfusionMeter was given" in "".join(told)
    assert "got -100 to 1 (and 1 more value)" in "".join(told)
    assert "left out: 'lr' at step 1: LastValueMeter was given the text 'a text'" in "".join(told)
    assert saved.exists()


def test_a_name_that_the_title_ends_with_is_not_repeated(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.add(train_pred=(np.eye(3), np.arange(3)))
        rec.log()
    out, _ = flexrec("replay", tmp_path / "run.h5", "--save", tmp_path / "e.json")
    assert out.splitlines()[:2] == ["Pred accuracy: train (1 point)", "Pred confusion, train"]
    with Recorder(tmp_path / "other.h5", facts=False) as rec:
        rec.add(note="a text")
    both = tmp_path / "run.h5", tmp_path / "other.h5"
    out, _ = flexrec("replay", *both, "--save", tmp_path / "b.json")
    assert "other: Note" in out.splitlines()


def test_strict_ends_at_the_first(odd: Path, tmp_path: Path) -> None:
    saved = tmp_path / "e.json"
    line = fails("replay", odd, "-p", "loss+lr", "--phases", "train", "--save", saved, "--strict")
    assert line.startswith("'lr' at step 1: LastValueMeter was given the text 'a text'")
    assert not saved.exists()


def test_a_whole_replay_exits_with_0_and_show_plot_is_told_alike(odd: Path) -> None:
    out, error = flexrec("show", odd, "--plot", "loss+lr", code=1)
    assert "Loss" in out
    assert "left out: 'lr' at step 1" in error
    flexrec("show", odd, "--plot", "loss")


def test_following_tells_what_is_left_out(odd: Path, tmp_path: Path) -> None:
    saved = tmp_path / "e.json"
    _, error = flexrec("replay", odd, "-p", "lr", "--follow", "--save", saved, code=1)
    assert error == (
        "flexrec: left out: 'lr' at step 1: LastValueMeter was given the text 'a text': value must "
        "be real numbers, got str\n"
    )
    assert list(json.loads(saved.read_text())["jsons"]) == ["lr"]


def test_values_after_the_last_log_are_told(tmp_path: Path) -> None:
    path, saved = tmp_path / "run.h5", tmp_path / "e.json"
    with Recorder(path, facts=False) as rec:
        for epoch in range(2):
            rec.add(train_loss=1.0)
            rec.log(epoch)
            rec.add(test_loss=9.0 + epoch)  # evaluated after the mark
        rec.add(unplotted=1.0)
    _, error = flexrec("replay", path, "-p", "loss", "--save", saved)
    assert error == (
        f"flexrec: {path}: 1 value after the last log is not plotted: call log() after all adds of "
        "an epoch, or draw by step with --every N\n"
    )
    checked = ("check", path, "-p", "loss", "--golden", tmp_path / "g.json", "--update")
    assert flexrec(*checked)[1] == error
    assert flexrec("replay", path, "-p", "loss", "--every", 1, "--save", saved, "--force")[1] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--save e.json --port 80", "--port does nothing with --save"),
        ("--html e.html --server http://a", "--server does nothing with --html"),
        ("--save e.json --server http://a --base-url b", "--server and --base-url do nothing"),
        ("--save e.json --no-browser", "--no-browser does nothing with --save"),
        ("--serve --server http://a", "--server does nothing with --serve"),
        ("--serve --force", "--force does nothing with --serve"),
        ("--force", "--force does nothing without --save or --html"),
        ("--env-path folder", "--env-path does nothing without --serve"),
        ("--save e.json --html e.html", "choose one of --save, --html and --serve"),
    ],
)
def test_options_that_do_nothing_together_are_refused(
    odd: Path, options: str, message: str, tmp_path: Path
) -> None:
    _, error = flexrec("replay", odd, "-p", "loss", *options.split(), code=2, cwd=tmp_path)
    assert message in " ".join(error.replace("│", "").split())
    assert list(tmp_path.iterdir()) == []


def test_those_of_other_commands_are_refused(odd: Path, tmp_path: Path) -> None:
    for words, message in (
        (("check", odd, "-p", "loss", "-g", "g.json", "--port", 8), "--port does nothing without"),
        (("serve", "-p", "loss"), "--preset does nothing without recordings"),
        (("show", odd, "--plot", "loss", "--model"), "choose one of --plot and --model"),
        (("export", odd, "--force"), "--force needs a file to write"),
    ):
        _, error = flexrec(*words, code=2, cwd=tmp_path)
        assert message in " ".join(error.replace("│", "").split())


def test_a_warning_is_one_line(tmp_path: Path) -> None:
    path, saved = tmp_path / "run.h5", tmp_path / "e.json"
    with Recorder(path, facts=False) as rec:
        for _ in range(3):
            rec.add(train_loss=(0.5, 32))
        rec.log(0)
    words = ("replay", path, "-p", "loss", "--phases", "train", "--save", saved)
    _, error = flexrec(*words)
    assert error.count("\n") == 1
    assert error.startswith("flexrec: (0.5, 32) is taken for a sum of 32 values, 0.0156 each;")


def test_help_of_replay_is_in_panels() -> None:
    out, _ = flexrec("replay", "--help")
    panels = ("What is drawn", "Where it is drawn", "The built-in server")
    assert [out.index(f"─ {panel} ─") for panel in panels] == sorted(
        out.index(f"─ {panel} ─") for panel in panels
    )


def test_a_near_miss_of_a_key_is_told(odd: Path, tmp_path: Path) -> None:
    for words in (
        ("replay", odd, "-p", "loss", "-k", "los", "--save", tmp_path / "e.json"),
        ("show", odd, "-k", "los"),
        ("export", odd, "-k", "los"),
    ):
        assert "did you mean 'train_loss'?" in fails(*words)


def test_what_is_not_recorded_of_layers_is_told_with_the_call_that_records_it(
    tmp_path: Path,
) -> None:
    with Recorder(tmp_path / "a.h5", facts=False) as rec:
        rec.add({"train_loss": 1.0, "0/weights/mean": 0.1})
        rec.log(0)
    _, error = flexrec("replay", tmp_path / "a.h5", "-p", "health", "--save", tmp_path / "e.json")
    assert 'to record them: rec.watch(model, sources=("outputs", "grad_weights")' in error


def test_plots_are_chosen_for_all_recordings_together_not_anew_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        with Recorder(tmp_path / f"{name}.h5", facts=False) as rec:
            rec.add(loss=1.0)
            rec.log(0)
    chosen = list[object]()

    def counted(*given: Any) -> Definitions:
        chosen.append(given)
        return fitting(*given)

    monkeypatch.setattr("flexrec.cli.replaying.fitting", counted)
    paths = map(str, sorted(tmp_path.glob("*.h5")))
    done = CliRunner().invoke(app, ["replay", *paths, "--html", str(tmp_path / "page.html")])
    assert (done.exit_code, len(chosen)) == (0, 1), done.output
