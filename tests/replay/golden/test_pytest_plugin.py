"""The fixtures `plot_check` and `run_check`, in pytest runs of their own."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flexrec.replay import FlexLogger, snapshot
from flexrec.replay.golden.check import check
from flexrec.replay.golden.pytest_plugin import _file_name
from flexrec.replay.golden.report import report_text
from flexrec.replay.golden.run.check import check_run

pytest_plugins = ["pytester"]

# The runs are in this process: what is slow to import is imported here, once.
IMPORTED = (FlexLogger, check, check_run, report_text, snapshot([]))

ROOT = Path(__file__).resolve().parents[3]
QUICK = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
HEAD = """
import pytest
from flexrec.replay import FlexLogger, Trace, Window, preset
from flexrec.replay.sinks.base import ListSink

def windows(*values):
    return [Window("loss", None, "line", (Trace("train", y=list(values), x=range(len(values))),))]
"""
ONE = HEAD + "def test_loss(plot_check): plot_check(windows(3.0, {}))\n"


def passes(pytester: pytest.Pytester, *arguments: str, passed: int = 1) -> str:
    """Run pytest, all of whose tests must pass; return what it printed."""
    result = pytester.runpytest_inprocess(*QUICK, *arguments)
    result.assert_outcomes(passed=passed)
    return str(result.stdout.str())


def fails(pytester: pytest.Pytester, *arguments: str, failed: int = 1, passed: int = 0) -> str:
    """Run pytest, some of whose tests must fail; return what it printed."""
    result = pytester.runpytest_inprocess(*QUICK, *arguments)
    result.assert_outcomes(failed=failed, passed=passed)
    return str(result.stdout.str())


def goldens(pytester: pytest.Pytester, folder: str = "goldens") -> list[str]:
    """The files below a folder of goldens."""
    root = pytester.path / folder
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_the_plugin_loads_where_pytest_is_older() -> None:
    """The name came with pytest 8.4, and every run of its users would end as the plugin loads."""
    code = (
        "import pytest\nif hasattr(pytest, 'TerminalReporter'): del pytest.TerminalReporter\n"
        "import flexrec.replay.golden.pytest_plugin"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_left_out_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it=HEAD
        + """
@pytest.mark.filterwarnings("ignore:left out")
def test_loss(plot_check):
    logger = FlexLogger(preset("loss+lr"), sink=ListSink())
    logger.add(train_loss=1.0, lr="a text")
    logger.log()
    plot_check(logger)
"""
    )
    for _ in range(2):
        text = fails(pytester, "--plot-update")
        assert "left out of the plots of goldens/test_it/test_loss.json:" in text
        assert "'lr' at step 0: LastValueMeter was given the text 'a text'" in text
    assert "left out of the plots" in fails(pytester)


def test_an_empty_golden_is_told_with_pytests_option(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=ONE.format(2.0))
    golden = pytester.path / "goldens" / "test_it" / "test_loss.json"
    golden.parent.mkdir(parents=True)
    golden.touch()
    assert "is empty; pytest --plot-update writes it" in fails(pytester)
    passes(pytester, "--plot-update")


def test_the_life_of_a_golden(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=ONE.format(2.0))
    golden = "goldens/test_it/test_loss.json"
    text = fails(pytester)
    assert f"there was no golden: {golden} was written; look at it, commit it, and run" in text
    assert "goldens written" in text
    assert goldens(pytester) == ["test_it/test_loss.json"]
    assert "goldens written" not in passes(pytester)
    first = (pytester.path / golden).read_bytes()

    pytester.makepyfile(test_it=ONE.format(2.5))
    text = fails(pytester)
    assert f"the plots differ from the golden {golden}" in text
    assert "1 of 2 points differs, first at index 1 (x = 1): 2.5, golden 2.0" in text
    assert "obtained: goldens/test_it/test_loss.obtained.json" in text
    assert "pytest --plot-update accepts it" in text
    assert goldens(pytester) == ["test_it/test_loss.json", "test_it/test_loss.obtained.json"]
    assert (pytester.path / golden).read_bytes() == first

    text = passes(pytester, "--plot-update")
    assert "goldens written" in text
    assert golden in text
    assert goldens(pytester) == ["test_it/test_loss.json"]
    assert (pytester.path / golden).read_bytes() != first
    passes(pytester)


def test_an_update_writes_a_missing_golden_and_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=ONE.format(2.0))
    passes(pytester, "--plot-update")
    assert "goldens written" not in passes(pytester, "--plot-update")


def test_tolerances_are_passed_on(pytester: pytest.Pytester) -> None:
    body = HEAD + "def test_loss(plot_check): plot_check(windows(4.0, {}), rtol={}, atol={})\n"
    pytester.makepyfile(test_it=body.format(2.0, 0, 0))
    passes(pytester, "--plot-update")
    for value, rtol, atol, good in (
        (2.25, 0.125, 0, True), (2.26, 0.125, 0, False),
        (2.25, 0, 0.25, True), (2.26, 0, 0.25, False),
    ):  # fmt: skip
        pytester.makepyfile(test_it=body.format(value, rtol, atol))
        (passes if good else fails)(pytester)


def test_recordings_and_loggers(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it=HEAD
        + """
from flexrec.recorder import Recorder, Recording

def feed(sink):
    for epoch in range(3):
        sink.add(train_loss=1.0 / (epoch + 1), test_loss=2.0)
        sink.log(epoch)

@pytest.fixture
def run(tmp_path):
    with Recorder(tmp_path / "run.h5") as rec:
        feed(rec)
    return tmp_path / "run.h5"

@pytest.fixture
def logger():
    logger = FlexLogger(preset("loss"), sink=ListSink())
    feed(logger)
    return logger

@pytest.mark.parametrize("kind", ["path", "recording", "live", "windows"])
def test_all_the_same(plot_check, run, logger, kind):
    source = {"path": run, "recording": Recording(run), "live": logger}.get(kind)
    if kind == "windows":
        plot_check(logger.windows(), name="same")
    else:
        plot_check(source, preset="loss", rtol=1e-6, name="same")

def test_definitions(plot_check, run, tmp_path):
    toml = tmp_path / "plots.toml"
    toml.write_text('preset = "loss"')
    plot_check(run, definitions=toml, phases=["test"], every=2)
    plot_check(run, definitions=preset("loss", phases=["test"]), every=2)
"""
    )
    passes(pytester, "--plot-update", passed=5)
    passes(pytester, passed=5)
    texts = {(pytester.path / "goldens/test_it" / name.split("/")[1]).read_bytes()
             for name in goldens(pytester) if name.endswith(".same.json")}  # fmt: skip
    assert len(texts) == 1
    first, second = ((pytester.path / f"goldens/test_it/test_definitions{n}.json").read_text()
                     for n in ("", ".2"))  # fmt: skip
    assert first == second
    assert '"train"' not in first


def test_names_of_classes_parameters_and_several_calls(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it=HEAD
        + """
class TestOuter:
    class TestInner:
        def test_deep(self, plot_check): plot_check(windows(1.0))
    def test_twice(self, plot_check):
        plot_check(windows(1.0))
        plot_check(windows(2.0))
        plot_check(windows(3.0), name="third one")

@pytest.mark.parametrize("x", ["a/b", "a_b", "a:b", "../up", "", "x" * 300, "loss+MSE", 1.5])
def test_odd(plot_check, x): plot_check(windows(float(len(str(x)))))
"""
    )
    passes(pytester, "--plot-update", passed=10)
    passes(pytester, passed=10)
    names = goldens(pytester)
    assert {
        "test_it/TestOuter.TestInner.test_deep.json",
        "test_it/TestOuter.test_twice.json",
        "test_it/TestOuter.test_twice.2.json",
        "test_it/test_odd-a_b.json",
        "test_it/test_odd-loss+MSE.json",
        "test_it/test_odd-1.5.json",
    } <= set(names)
    assert len(names) == 12
    assert all(len(name) < 150 for name in names)
    assert sum(name.startswith("test_it/test_odd-a_b") for name in names) == 3


def test_folders_are_beside_the_test(pytester: pytest.Pytester) -> None:
    for folder in ("a", "b"):
        path = pytester.mkdir(folder) / f"test_{folder}.py"
        path.write_text(ONE.format(2.0))
    passes(pytester, "--plot-update", passed=2)
    for folder in ("a", "b"):
        assert goldens(pytester, f"{folder}/goldens") == [f"test_{folder}/test_loss.json"]


def test_one_golden_belongs_to_one_call(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it=HEAD
        + """
def test_loss(plot_check):
    plot_check(windows(1.0), name="a")
    plot_check(windows(2.0), name="a")
"""
    )
    assert "give plot_check a name=" in fails(pytester, "--plot-update")


def test_goldens_differ_in_more_than_upper_and_lower_case(pytester: pytest.Pytester) -> None:
    body = "def test_Loss(plot_check): plot_check(windows(1.0))\n"
    pytester.makepyfile(test_it=HEAD + body + body.lower())
    assert "give plot_check a name=" in fails(pytester, "--plot-update", passed=1)


def test_a_wrong_preset_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_loss(plot_check): plot_check('run.h5', preset='los+MSE')")
    assert "no preset 'los'; did you mean 'loss'?" in fails(pytester)
    assert goldens(pytester) == []


def test_workers(pytester: pytest.Pytester) -> None:
    body = """
@pytest.mark.parametrize("k", range(6))
def test_many(plot_check, k): plot_check(windows(1.0, float(k) + {}))
"""
    pytester.makepyfile(test_it=HEAD + body.format(0))
    text = fails(pytester, "-n", "2", failed=6)
    assert text.count("test_many-5.json") >= 2  # the failure, and the summary
    assert len(goldens(pytester)) == 6
    pytester.makepyfile(test_it=HEAD + body.format("(k == 3)"))
    assert "test_many-3.obtained.json" in fails(pytester, "-n", "2", failed=1, passed=5)
    assert "test_many-3.json" in passes(pytester, "-n", "2", "--plot-update", passed=6)
    assert len(goldens(pytester)) == 6


def test_a_folder_that_cannot_be_written_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=ONE.format(2.0))
    (pytester.path / "goldens").write_text("a file, not a folder")
    assert "cannot write" in fails(pytester)


def test_the_example_holds_and_catches_a_bug(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "test_plots", raising=False)  # our own tests have one too
    example = ROOT / "examples" / "test_plots.py"
    (copy := pytester.path / example.name).write_text(text := example.read_text())
    shutil.copytree(ROOT / "examples" / "goldens", pytester.path / "goldens")
    passes(pytester, passed=3)
    copy.write_text(text.replace("lr * 2 * weight", "lr * 2.0001 * weight"))
    assert "trace train, y: 5 of 5 points differ" in fails(pytester, failed=3)


def test_it_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    """pytest loads the plugin in every run: it must import nothing heavy."""
    (tmp_path / "test_none.py").write_text("def test_none(): pass")
    code = (
        "import sys, pytest\n"
        "assert pytest.main(['-q', '-p', 'no:cacheprovider', sys.argv[1]]) == 0\n"
        "assert 'flexrec.replay.golden.pytest_plugin' in sys.modules\n"
        "heavy = {'torch', 'visdom', 'h5py', 'numpy', 'requests', 'PIL', 'scipy'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loaded: []" in done.stdout


def test_help_names_the_option_and_the_fixture(pytester: pytest.Pytester) -> None:
    text = pytester.runpytest_inprocess("--help").stdout.str()
    assert "--plot-update" in text
    assert "--run-update" in text
    shown = pytester.runpytest_inprocess("--fixtures").stdout.str()
    assert "plot_check -- " in shown
    assert "Compare plots with a golden file named after the test" in shown
    assert "Compare a training run with a golden file named after the test" in shown


# ---------------------------------------------------------------------- golden runs

RUN = """
import numpy as np
from flexrec.recorder import Recorder, Recording

def train(path, lr=0.1):
    weight = 1.0
    with Recorder(path, facts=False) as rec:
        for _ in range(9):
            rec.add(train_loss=weight**2)
            weight -= lr * 2 * weight
            rec.step()
    return path
"""
ONE_RUN = RUN + "def test_run(run_check, tmp_path): run_check(train(tmp_path / 'run.h5', {}){})\n"


def test_the_life_of_a_golden_of_a_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=ONE_RUN.format(0.1, ""))
    golden = "goldens/test_it/test_run.run.json"
    text = fails(pytester)
    assert f"there was no golden: {golden} was written; look at it, commit it, and run" in text
    assert "goldens written" in text
    passes(pytester)
    first = (pytester.path / golden).read_bytes()

    pytester.makepyfile(test_it=ONE_RUN.format("0.1 + 1e-15", ""))
    text = fails(pytester, "--plot-update")
    assert f"the run differs from the golden {golden}" in text
    assert "first     step 1, loss: train_loss differs, all before it is equal" in text
    assert "obtained: goldens/test_it/test_run.run.obtained.json" in text
    assert "pytest --run-update accepts it" in text
    assert (pytester.path / golden).read_bytes() == first

    pytester.makepyfile(test_it=ONE_RUN.format("0.1 + 1e-15", ", rtol=1e-9"))
    passes(pytester)
    assert goldens(pytester) == ["test_it/test_run.run.json"]
    pytester.makepyfile(test_it=ONE_RUN.format(0.2, ""))
    assert golden in passes(pytester, "--run-update")
    passes(pytester)


def test_names_of_goldens_of_runs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it=RUN
        + """
def test_several(plot_check, run_check, tmp_path):
    with Recording(train(tmp_path / "run.h5")) as run:
        run_check(run)
        run_check(run, platform=True)
        run_check(run, platform="H100 SXM", keys=["*loss"], every=3)
        run_check(run, name="again")
        plot_check(run, preset="loss", every=1)
"""
    )
    passes(pytester, "--run-update", "--plot-update")
    passes(pytester)
    system = f"{platform.system()}-{platform.machine()}".lower()
    assert goldens(pytester) == sorted(
        f"test_it/test_several{part}.json"
        for part in (
            "",
            ".run",
            f".2.{system}.run",
            f".3.{_file_name('H100 SXM')}.run",
            ".again.run",
        )
    )


def test_the_example_of_runs_holds_and_catches_a_bug(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.delitem(sys.modules, "test_training", raising=False)
    example = ROOT / "examples" / "test_training.py"
    (copy := pytester.path / example.name).write_text(text := example.read_text())
    shutil.copytree(ROOT / "examples" / "goldens", pytester.path / "goldens")
    passes(pytester, passed=2)
    copy.write_text(text.replace("momentum=0.9", "momentum=0.8").replace("lr * 2", "lr * 2.00001"))
    text = fails(pytester, failed=2)
    assert "first     step 1, loss" in text
