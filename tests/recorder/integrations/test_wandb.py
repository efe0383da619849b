"""What scripts call of wandb."""

import copy
import pickle
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flexrec.recorder import InputError, Recording
from flexrec.recorder.integrations import wandb
from support.framework_cases import Net, data, numbers


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    wandb.finish()


def test_settings_of_wandb_are_accepted() -> None:
    with pytest.warns(RuntimeWarning, match="Settings: flexrec cannot record this"):
        wandb.init(project="digits", settings=wandb.Settings(start_method="thread"))


def test_a_script_records() -> None:
    wandb.init(project="digits", name="first", config={"lr": 0.1}, entity="me", mode="offline")
    assert wandb.config.lr == wandb.config["lr"] == 0.1
    wandb.config.update(Namespace(batch=64), allow_val_change=True)
    wandb.config.width = 8
    for step in range(3):
        wandb.log({"loss": 1 / (step + 1), "train": {"acc": torch.tensor(0.5)}})
    wandb.summary["best"] = 0.9
    wandb.finish()
    with Recording("runs/digits/first.h5") as run:
        assert run.config == {"lr": 0.1, "batch": 64, "width": 8}
        assert run.complete
    assert numbers(Path("runs/digits/first.h5")) == {
        "loss": [(0, 1.0), (1, 0.5), (2, 1 / 3)],
        "train/acc": [(0, 0.5), (1, 0.5), (2, 0.5)],
        "summary/best": [(3, 0.9)],
    }


def test_steps_may_be_given_and_shared() -> None:
    with wandb.init(name="a") as run:
        run.log({"x": 1}, step=10)
        run.log({"y": 2}, commit=False)
        run.log({"z": 3})
        run.log({"x": 4})
        assert run.step == 12
    assert numbers(Path("runs/a.h5")) == {
        "x": [(10, 1.0), (11, 4.0)],
        "y": [(10, 2.0)],
        "z": [(10, 3.0)],
    }


def test_a_name_that_is_taken_is_numbered_and_a_run_resumed() -> None:
    for _ in range(2):
        with wandb.init(name="a") as run:
            run.log({"x": 1})
    with wandb.init(id="a", resume="allow") as run:
        run.log({"x": 2})
    assert numbers(Path("runs/a.h5"))["x"] == [(0, 1.0), (1, 2.0)]
    assert numbers(Path("runs/a_2.h5"))["x"] == [(0, 1.0)]


def test_pictures_and_histograms_are_recorded() -> None:
    with wandb.init(name="a", dir="elsewhere") as run:
        image = wandb.Image(torch.zeros(3, 4, 4), caption="none")
        run.log({"image": image, "histogram": wandb.Histogram(np.arange(9))})
    with Recording("elsewhere/a.h5") as recording:
        assert recording.kind("image") == "float32:3"
        assert "HistogramMeter" in recording.kind("histogram")


def test_layers_are_watched() -> None:
    model = Net()
    wandb.init(name="a")
    wandb.watch(model, log="all", log_freq=2)
    for x, _ in data():
        model(x).sum().backward()
        wandb.log({"loss": 1.0})
    wandb.finish()
    assert [step for step, _ in numbers(Path("runs/a.h5"))["net.0/grad_out/mean"]] == [0, 2]


def test_layers_are_watched_where_steps_are_given() -> None:
    model = Net()
    with wandb.init(name="a") as run:
        run.watch(model, log_freq=1)
        for step, (x, _) in enumerate(data()):
            model(x).sum().backward()
            run.log({"loss": 1.0}, step=step)
            run.log({"acc": 1.0}, step=step)
        run.log({"acc": 2.0})
        assert run.step == 4
    found = numbers(Path("runs/a.h5"))
    for key in ("net.0/grad_out/mean", "net.0/weights/mean"):
        assert [step for step, _ in found[key]] == [0, 1, 2, 3], key
    assert [step for step, _ in found["acc"]] == [0, 1, 2, 3, 3]


def test_layers_are_recorded_once_where_a_step_is_committed_again() -> None:
    model = Net()
    with wandb.init(name="a") as run:
        run.watch(model, log_freq=1)
        for step, (x, _) in enumerate(data()):
            model(x).sum().backward()
            run.log({"loss": 1.0}, step=step, commit=True)
            run.log({"acc": 1.0}, step=step, commit=True)
    found = numbers(Path("runs/a.h5"))
    for key in ("net.0/grad_out/mean", "net.0/weights/mean", "loss", "acc"):
        assert [step for step, _ in found[key]] == [0, 1, 2, 3], key


def test_what_cannot_be_recorded_is_said_once() -> None:
    run = wandb.init(name="a")
    with pytest.warns(RuntimeWarning, match="Table: flexrec cannot record this"):
        table = wandb.Table(columns=["a"])
    with pytest.warns(RuntimeWarning, match="define_metric: flexrec cannot record this"):
        run.define_metric("loss", summary="min")
    run.define_metric("acc")  # a warning is an error here
    wandb.log({"table": table, "loss": 1.0})
    wandb.finish()
    assert numbers(Path("runs/a.h5")) == {"loss": [(0, 1.0)]}


def test_what_is_left_out_can_be_used(recwarn: pytest.WarningsRecorder) -> None:
    wandb._said.clear()
    run = wandb.init(project="digits", id=wandb.util.generate_id(), config={"lr": 0.1})
    artifact = wandb.Artifact("model", type="model")
    artifact.add_file("model.pt")
    with artifact.new_file("notes.txt") as file:
        file.write("text")
    run.log_artifact(artifact).wait()
    table = wandb.Table(columns=["a"])
    table.add_data(1)
    wandb.log({"loss": 1.0, "table": table, "val": {"acc": 0.5, "table": table}})
    assert not list(wandb.Api().runs("me/digits"))
    assert not run.starred
    assert run.resumed is False
    Path(run.dir, "model.pt").touch()
    wandb.finish()
    assert numbers(Path("runs/digits/run.h5")) == {"loss": [(0, 1.0)], "val/acc": [(0, 0.5)]}
    assert Path("runs/digits/model.pt").exists()
    said = [str(each.message).partition(":")[0] for each in recwarn]
    assert sorted(said) == sorted(["util", "Artifact", "log_artifact", "Table", "Api"])
    assert wandb.init(project="digits", resume="allow", id="run").resumed is True


def test_a_run_is_needed() -> None:
    with pytest.raises(InputError, match="call init"):
        wandb.log({"loss": 1.0})
    assert wandb.run is None
    wandb.finish()


@pytest.mark.parametrize(
    ("project", "name", "path"),
    [
        ("../../../evil", "../x", "runs/__.._.._evil/__x.h5"),
        ("..", ".", "runs/_/_.h5"),
        (None, "/a:b\0c", "runs/_a_b_c.h5"),
        ("p.", "lr=0.1 é", "runs/p_/lr=0.1 é.h5"),
        (None, "n" * 400, f"runs/{'n' * 150}-38746e50.h5"),
    ],
)
def test_names_stay_in_the_folder(project: str | None, name: str, path: str) -> None:
    with wandb.init(project=project, name=name) as run:
        run.log({"x": 1})
        assert run.name == name
    assert [f"{each}" for each in Path().rglob("*.h5")] == [path]


def test_what_is_no_dict_is_an_error() -> None:
    with pytest.raises(InputError, match="config takes a dict"):
        wandb.init(config="x.yaml")
    values: tuple[Any, ...] = ("x", [1], 5)
    for call in (wandb.log, wandb.config.update):
        for value in values:
            with pytest.raises(InputError, match="takes a dict, such as"):
                call(value)


def test_what_holds_a_run_can_be_copied(tmp_path: Path) -> None:
    run = wandb.init(project="p", dir=str(tmp_path), config={"lr": 0.1})
    run.log({"acc": 0.0})  # opens the recording
    pickled = pickle.loads(pickle.dumps({"run": run}))  # noqa: S301
    for copied in (copy.deepcopy({"run": run}), pickled):
        copied["run"].log({"loss": 1.0})  # records nothing
        assert copied["run"].config.lr == 0.1
    path = next(tmp_path.rglob("*.h5"))
    run.finish()
    with Recording(path) as found:
        assert found.keys() == ["acc"]
