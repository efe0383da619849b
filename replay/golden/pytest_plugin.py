"""The pytest fixtures `plot_check` and `run_check`: compare with golden files named after the test.

pytest loads this file in every run if flexrec is installed, so nothing heavy is imported at the
top.
"""

import hashlib
import os
import platform as this_platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flexrec.replay.golden.model import RTOL

if TYPE_CHECKING:
    from flexrec.recorder.recording import Recording
    from flexrec.replay.definitions.definitions import Definitions
    from flexrec.replay.golden.check import Outcome
    from flexrec.replay.golden.run.check import RunOutcome

_WRITTEN = "flexrec_golden_written"
_OWNERS = pytest.StashKey[dict[str, str]]()
_LONGEST = 120  # characters of the test's name in a file's name


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--plot-update` and `--run-update`."""
    group = parser.getgroup("flexrec", "plots and training runs against goldens (flexrec)")
    for what in ("plot", "run"):
        group.addoption(
            f"--{what}-update",
            action="store_true",
            help=f"write golden files of {what}_check that are missing or differ",
        )


class _Goldens:
    """The golden files of a test, named after it.

    Args:
        request: of the test.
        fixture: the name of the fixture.
        option: the option of pytest that writes them.
    """

    def __init__(self, request: pytest.FixtureRequest, fixture: str, option: str) -> None:
        self._node, self._fixture, self._option = request.node, fixture, option
        self._update = bool(request.config.getoption(option.removeprefix("--").replace("-", "_")))
        self._owners = request.config.stash.setdefault(_OWNERS, {})
        self._mine: set[str] = set()

    def _claim(self, name: str | None, suffix: str = "") -> Path:
        """The path of this call's golden file, which no other call may use."""
        parts = [node.name for node in self._node.listchain() if isinstance(node, pytest.Class)]
        stem = _file_name(".".join([*parts, self._node.name]))
        if name is not None:
            stem += f".{_file_name(name)}"
        elif self._mine:
            stem += f".{len(self._mine) + 1}"
        test_file: Path = self._node.path
        path = test_file.parent / "goldens" / test_file.stem / f"{stem}{suffix}.json"
        # Goldens are shared with systems whose file names are the same in upper and lower case.
        claimed = str(path).casefold()
        owner = self._owners.setdefault(claimed, self._node.nodeid)
        if claimed in self._mine or owner != self._node.nodeid:
            raise ValueError(f"{owner} has the golden {path} already: give {self._fixture} a name=")
        self._mine.add(claimed)
        return path

    def _tell_written(self, path: Path) -> None:
        """Have the summary list a golden that was written."""
        self._node.user_properties.append((_WRITTEN, os.path.relpath(path)))

    def _fail_as_new(self, path: Path) -> None:
        __tracebackhide__ = True
        pytest.fail(
            f"there was no golden: {os.path.relpath(path)} was written; look at it, commit it, "
            "and run again",
            pytrace=False,
        )

    def _fail_as_different(
        self, what: str, report: str, outcome: "Outcome | RunOutcome", *, is_learnt: bool = False
    ) -> None:
        __tracebackhide__ = True
        kept = os.path.relpath(outcome.kept) if outcome.kept else f"not kept: {outcome.unkept}"
        accepts = "" if is_learnt else f"\npytest {self._option} accepts it"
        pytest.fail(
            f"{what} from the golden {os.path.relpath(outcome.path)}\n{report}\n"
            f"obtained: {kept}{accepts}",
            pytrace=False,
        )


class PlotCheck(_Goldens):
    """The value of the fixture `plot_check`: call it, once or several times, in a test."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request, "plot_check", "--plot-update")

    def __call__(
        self,
        source: Any,
        *,
        preset: str | None = None,
        definitions: "Definitions | str | os.PathLike[str] | None" = None,
        phases: Sequence[str] | None = None,
        every: int | None = None,
        rtol: float = RTOL,
        atol: float = 0.0,
        name: str | None = None,
        max_points: int | None = None,
        digits: int | None = None,
    ) -> None:
        """Fail the test if the plots differ from its golden file.

            def test_loss(plot_check):
                plot_check("run.h5", preset="loss+MSE", rtol=1e-6)

        A missing golden file is written, and the test fails; with `--plot-update` golden files
        that are missing or differ are written, and the test passes.

        Args:
            source: a recording or its path, several of them, a FlexLogger that has logged, or a
                list of windows.
            preset, definitions, phases, every: what to draw of recordings; `definitions` is an
                object or a TOML file. For a logger, leave them out or pass the logger's own.
            rtol, atol: numbers may differ by `atol + rtol * |golden|`.
            name: part of the golden file's name, if a test checks several plots.
            max_points, digits: thin and round the plots; kept in the golden file.

        Raises:
            FlexrecError: the plots cannot be drawn, or a file cannot be read or written.
        """
        __tracebackhide__ = True
        from flexrec.recorder.errors import GoldenError
        from flexrec.replay.definitions.toml import definitions_from
        from flexrec.replay.golden.check import check
        from flexrec.replay.golden.report import report_text
        from flexrec.replay.golden.sources import played_from

        path = self._claim(name)
        drawn = definitions_from(preset_name=preset, definitions=definitions, phases=phases)
        is_new = not path.exists()
        played = played_from(source, drawn, every=every)
        try:
            outcome = check(
                played.windows,
                path,
                left_out=played.left_out,
                rtol=rtol,
                atol=atol,
                update=self._update or is_new,
                max_points=max_points,
                digits=digits,
            )
        except GoldenError as error:
            error.hint = "pytest --plot-update writes it" if error.hint else ""
            raise
        if outcome.written:
            self._tell_written(path)
        if is_new and not self._update:
            self._fail_as_new(path)
        if (outcome.kept or outcome.unkept) and outcome.comparison is not None:
            report = report_text(outcome.comparison)
            self._fail_as_different("the plots differ", report, outcome)
        if outcome.left_out:
            lines = "\n".join(map(str, outcome.left_out))
            shown = os.path.relpath(path)
            pytest.fail(f"what was left out of the plots of {shown}:\n{lines}", pytrace=False)


class RunCheck(_Goldens):
    """The value of the fixture `run_check`: call it, once or several times, in a test."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request, "run_check", "--run-update")

    def __call__(
        self,
        source: "Recording | str | os.PathLike[str]",
        *,
        keys: str | Sequence[str] = (),
        rtol: float = 0.0,
        atol: float = 0.0,
        every: int | None = None,
        platform: bool | str = False,
        name: str | None = None,
    ) -> None:
        """Fail the test if a training run differs from its golden file.

            def test_training(run_check, tmp_path):
                train(out=tmp_path / "run.h5")
                run_check(tmp_path / "run.h5")

        A missing golden file is written, and the test fails; with `--run-update` golden files
        that are missing or differ are written, and the test passes.

        Args:
            source: a recording, or its path.
            keys: a name or pattern of keys to keep, or several; by default all but those that
                measure time.
            rtol, atol: numbers may be apart by `atol + rtol * |golden|`; both 0: by no bit. Leave
                them out for a golden that `flexrec golden learn` wrote.
            every: keep the values of every n-th step of a key, and codes of the bits of the
                others; by default about 250 values are kept.
            platform: keep a golden for each platform: True for one named after system and
                processor, such as `linux-x86_64`, or a name, such as that of the accelerator.
            name: part of the golden file's name, if a test checks several runs.

        Raises:
            FlexrecError: the recording or the golden cannot be read, or a file not be written.
        """
        __tracebackhide__ = True
        from contextlib import ExitStack

        from flexrec.recorder.errors import GoldenError
        from flexrec.recorder.recording import Recording
        from flexrec.replay.golden.run.check import check_run

        path = self._claim(name, f"{_platform_suffix(platform)}.run")
        is_new = not path.exists()
        with ExitStack() as stack:
            run = (
                source if isinstance(source, Recording) else stack.enter_context(Recording(source))
            )
            try:
                outcome = check_run(
                    run,
                    path,
                    keys=keys,
                    rtol=rtol,
                    atol=atol,
                    every=every,
                    update=self._update or is_new,
                )
            except GoldenError as error:
                error.hint = f"pytest {self._option} writes it" if error.hint else ""
                raise
        if outcome.written:
            self._tell_written(path)
        if is_new and not self._update:
            self._fail_as_new(path)
        if not outcome.holds:
            report, is_learnt = str(outcome.diff), bool(outcome.learnt)
            self._fail_as_different("the run differs", report, outcome, is_learnt=is_learnt)


def _platform_suffix(platform: bool | str) -> str:
    if not platform:
        return ""
    if platform is True:
        platform = f"{this_platform.system()}-{this_platform.machine()}".lower()
    return f".{_file_name(platform)}"


@pytest.fixture
def plot_check(request: pytest.FixtureRequest) -> PlotCheck:
    """Compare plots with a golden file named after the test: plot_check(source, preset=…)."""
    return PlotCheck(request)


@pytest.fixture
def run_check(request: pytest.FixtureRequest) -> RunCheck:
    """Compare a training run with a golden file named after the test: run_check(recording)."""
    return RunCheck(request)


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """List the golden files that were written, on any worker."""
    written = {
        value: None
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == _WRITTEN
    }
    if written:
        terminalreporter.section("goldens written")
        for path in sorted(map(str, written)):
            terminalreporter.line(path)


def _file_name(name: str) -> str:
    """A file name that is valid on every file system; a digest keeps the names distinct."""
    plain = re.sub(r"\[(.*)\]$", r"-\1", name, flags=re.DOTALL)
    kept = re.sub(r"[^A-Za-z0-9_.+=-]", "_", plain)
    if kept == plain and len(kept) <= _LONGEST:
        return kept
    return f"{kept[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
