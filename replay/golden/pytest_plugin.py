"""The pytest fixture `plot_check`: compare plots with golden files named after the test.

pytest loads this file in every run if flexrec is installed, so nothing heavy is imported at the
top.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flexrec.replay.golden.model import RTOL

if TYPE_CHECKING:
    from flexrec.replay.definitions.definitions import Definitions


_WRITTEN = "flexrec_golden_written"
_OWNERS = pytest.StashKey[dict[str, str]]()
_LONGEST = 120  # characters of the test's name in a file's name


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--plot-update`."""
    parser.getgroup("flexrec", "plots against goldens (flexrec)").addoption(
        "--plot-update",
        action="store_true",
        help="write golden files of plot_check that are missing or differ",
    )


class PlotCheck:
    """The value of the fixture `plot_check`: call it, once or several times, in a test."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._node = request.node
        self._update = bool(request.config.getoption("plot_update"))
        self._owners = request.config.stash.setdefault(_OWNERS, {})
        self._mine: set[str] = set()

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
        from flexrec.replay.golden.check import check
        from flexrec.replay.golden.report import report_text
        from flexrec.replay.player.sources import definitions_from, played_from

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
        shown = os.path.relpath(path)
        if outcome.written:
            self._node.user_properties.append((_WRITTEN, shown))
        if is_new and not self._update:
            pytest.fail(
                f"there was no golden: {shown} was written; look at it, commit it, and run again",
                pytrace=False,
            )
        if outcome.kept is not None and outcome.comparison is not None:
            pytest.fail(
                f"the plots differ from the golden {shown}\n"
                f"{report_text(outcome.comparison)}\n"
                f"obtained: {os.path.relpath(outcome.kept)}\n"
                "pytest --plot-update accepts it",
                pytrace=False,
            )
        if outcome.left_out:
            lines = "\n".join(map(str, outcome.left_out))
            pytest.fail(f"what was left out of the plots of {shown}:\n{lines}", pytrace=False)

    def _claim(self, name: str | None) -> Path:
        """The path of this call's golden file, which no other call may use."""
        parts = [node.name for node in self._node.listchain() if isinstance(node, pytest.Class)]
        stem = _file_name(".".join([*parts, self._node.name]))
        if name is not None:
            stem += f".{_file_name(name)}"
        elif self._mine:
            stem += f".{len(self._mine) + 1}"
        test_file: Path = self._node.path
        path = test_file.parent / "goldens" / test_file.stem / f"{stem}.json"
        # Goldens are shared with systems whose file names are the same in upper and lower case.
        claimed = str(path).casefold()
        owner = self._owners.setdefault(claimed, self._node.nodeid)
        if claimed in self._mine or owner != self._node.nodeid:
            raise ValueError(f"{owner} has the golden {path} already: give plot_check a name=")
        self._mine.add(claimed)
        return path


@pytest.fixture
def plot_check(request: pytest.FixtureRequest) -> PlotCheck:
    """Compare plots with a golden file named after the test: plot_check(source, preset=…)."""
    return PlotCheck(request)


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
