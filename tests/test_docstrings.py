"""The examples of all docstrings run, as they stand.

They find a recording, run.h5, two ranks' recordings, and the names that an example cannot make by
itself in a line: a model, a batch, a loss. A logger of theirs draws into a list, not into visdom.
"""

import doctest
import functools
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import flexrec
from flexrec import recorder, replay
from flexrec.recorder import Recorder, Recording
from flexrec.replay.sinks import ListSink

torch = pytest.importorskip("torch")

HOME = Path(str(flexrec.__file__)).parent
EXAMPLE = ">>> "
SKIP = "# doctest: +SKIP"
SKIPPED = 3  # lines that need torchmetrics, which no extra brings
LOGGERS = ("FlexLogger", "TooledModelLogger", "get_preset_logger")
HAS_PANDAS = importlib.util.find_spec("pandas") is not None  # tools/left_out.py names it


def modules() -> list[str]:
    """The modules that have examples."""
    files = (file for floor in ("", "recorder", "replay", "cli") for file in files_of(floor))
    return [
        ".".join(("flexrec", *file.relative_to(HOME).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        for file in files
        if EXAMPLE in file.read_text("utf-8")
    ]


def files_of(floor: str) -> list[Path]:
    return sorted((HOME / floor).rglob("*.py") if floor else HOME.glob("*.py"))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recordings of one process and of two."""
    folder = tmp_path_factory.mktemp("recordings")
    output, target = np.zeros((2, 3), "f4"), np.ones((2, 3), "f4")
    for number, name in enumerate(("run.h5", "run-0.h5", "run-1.h5")):
        with Recorder(folder / name, config={"lr": 0.1}, facts=False) as rec:
            for epoch in range(2):
                for batch in range(5):
                    rec.add(train_loss=1 / (5 * epoch + batch + number + 1))
                    rec.add(train_mse=(output, target))
                    rec.step()
                rec.log(epoch)
    return folder


@pytest.fixture
def names(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """What examples may use, in a folder that has the recordings."""
    monkeypatch.chdir(shutil.copytree(recordings, tmp_path / "here"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    public = {
        name: getattr(module, name)
        for module in (recorder, replay)
        for name in module.__all__
        if name != "TooledModel"
    }
    loggers = {name: functools.partial(public[name], sink=ListSink()) for name in LOGGERS}
    logger = loggers["get_preset_logger"]("loss")
    logger.add({"train_loss": 0.125, "test_loss": 0.25})
    x, y = torch.zeros(2, 4), torch.zeros(2, 3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    batch = {"x": x, "y": y, "output": y, "target": y, "images": x, "labels": torch.tensor([0, 1])}
    with Recorder("live.h5", facts=False) as rec, Recording("run.h5") as recording:
        yield {
            **public,
            **loggers,
            **batch,
            "Path": Path,
            "TooledModel": recorder.TooledModel,
            "epoch": 0,
            "loader": [(x, y)] * 2,
            "logger": logger,
            "loss": model(x).sum(),
            "model": model,
            "np": np,
            "owner": mock.Mock(),
            "path": "checkpoint.pt",
            "rec": rec,
            "recording": recording,
            "torch": torch,
        }


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # which some examples show
@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_run(name: str, names: dict[str, Any]) -> None:
    module = importlib.import_module(name)
    more = {each: names[each] for each in names if each in LOGGERS or each not in vars(module)}
    found = doctest.DocTestFinder().find(module, name, module, extraglobs=more)
    assert any(test.examples for test in found)
    runner = doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    for test in found:
        if not HAS_PANDAS and test.name.endswith(".to_pandas"):
            continue
        runner.run(test, out=said.append, clear_globs=True)
    assert not runner.failures, "".join(said)


def test_few_examples_are_left_out() -> None:
    files = (file for floor in ("", "recorder", "replay", "cli") for file in files_of(floor))
    assert sum(file.read_text("utf-8").count(SKIP) for file in files) == SKIPPED


def test_examples_are_found() -> None:
    assert len(modules()) > 30
    assert "flexrec.recorder.recorder" in modules()
