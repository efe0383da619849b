"""What every preset shows of one recording, and what the digits example shows, held by goldens.

    python -m pytest tests/e2e/test_goldens.py --plot-update

writes those that are missing or differ. The recording is made by tools/golden_run.py.
"""

import runpy
from pathlib import Path

import pytest

from flexrec.recorder import Recording
from flexrec.replay import compare, play, preset, preset_names, snapshot
from flexrec.replay.golden.pytest_plugin import PlotCheck
from flexrec.replay.golden.snapshot import read_golden
from flexrec.replay.sinks.env_file import dump

pytestmark = pytest.mark.viewing

HERE = Path(__file__).parents[1]
RUN = HERE / "data" / "golden_run.h5"
GOLDENS = HERE / "e2e" / "goldens" / "test_goldens"
DIGITS = HERE.parent / "examples" / "digits.py"
DIGITS_RTOL = 1e-3
"""What another processor may do to three epochs of float32 training: two threads instead of one
change the curves by 2e-7, a learning rate that is wrong by 2 % changes them by 5e-2."""
TWO_IMAGES = {"acc": 0.6, "confusion": 0.06}
"""What two test images of 357, of about 36 in each class, may do to percents and fractions."""


@pytest.mark.parametrize("name", preset_names())
def test_preset(plot_check: PlotCheck, name: str) -> None:
    plot_check(RUN, preset=name)


def test_presets_together_every_five_steps(plot_check: PlotCheck) -> None:
    plot_check(RUN, preset="loss+MSE+acc", every=5)


@pytest.mark.parametrize("name", ["loss", "lr", "time", "layers", "sources"])
def test_the_bytes_are_the_same_everywhere(name: str) -> None:
    """Averages of a few numbers round the same on every machine, with every visdom."""
    with Recording(RUN) as run:
        text = dump(snapshot(play(run, preset(name))))
    assert text == (GOLDENS / f"test_preset-{name}.json").read_text(encoding="ascii")
    assert max(map(len, text.splitlines())) < 200


def test_every_golden_has_a_preset() -> None:
    """A preset that goes takes its golden along."""
    kept = {path.stem for path in GOLDENS.glob("test_preset-*.json")}
    assert kept == {f"test_preset-{name}" for name in preset_names()}


def digits(path: Path, lr: float = 0.05) -> Path:
    """Three epochs of the example, as it is committed."""
    runpy.run_path(str(DIGITS))["train"](str(path), epochs=3, lr=lr)
    return path


def test_the_digits_example(plot_check: PlotCheck, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = digits(tmp_path / "run.h5")
    plot_check(run, preset="loss+MSE", rtol=DIGITS_RTOL, name="curves")
    for name, atol in TWO_IMAGES.items():
        plot_check(run, preset=name, atol=atol, name=name)


def test_a_learning_rate_that_is_a_little_wrong_is_caught(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with Recording(digits(tmp_path / "run.h5", lr=0.051)) as run:
        obtained = snapshot(play(run, preset("loss+MSE")))
    golden = read_golden(GOLDENS / "test_the_digits_example.curves.json")
    found = compare(golden, obtained, rtol=DIGITS_RTOL)
    assert {(d.window, d.trace, d.kind, d.field) for d in found.differences} == {
        (name, phase, "values", "y") for name in ("loss", "mse") for phase in ("train", "test")
    }
