"""Curves as text: every curve told from the others, every number true, whatever the output."""

import io
import math
import sys
import warnings
from typing import Any

import pytest

from flexrec.cli.drawing.lines import plot_text
from flexrec.cli.drawing.text_plot import text_plot
from flexrec.cli.output import echo_as_is, escape_the_unknown
from flexrec.recorder import Recorder


class Output(io.TextIOWrapper):
    """Standard output in an encoding; a terminal, or none."""

    def __init__(self, encoding: str, *, is_terminal: bool = False) -> None:
        self.written = io.BytesIO()
        super().__init__(self.written, encoding=encoding)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Output("utf-8"))


def labels(text: str) -> list[float]:
    """The numbers beside the frame, from the top."""
    rows = [line.rpartition("│")[2].strip() for line in text.splitlines() if "│" in line]
    return [10 ** float(row[3:]) if row.startswith("10^") else float(row) for row in rows if row]


def test_curves_without_colours_have_a_character_each() -> None:
    text = text_plot("loss", [("train", [0, 1, 2], [0, 1, 2]), ("val", [0, 1, 2], [2, 1, None])])
    title, *rows, _, _, legend = text.splitlines()
    assert title.strip() == "loss"
    assert legend.split() == ["++", "train", "xx", "val"]
    assert "x" in rows[1]
    assert rows[1].rstrip(" 2").endswith("+│")
    assert rows[-1].startswith("│+")


def test_more_curves_than_characters_are_several_plots() -> None:
    curves = [(f"layer{k}", [0, 1], [0, k]) for k in range(7)]
    text = text_plot("w", curves)
    assert text.count("w\n") == 2
    assert all(name in text for name, _, _ in curves)


def test_colours_tell_curves_apart_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    curves = [("a", [0, 1], [0, 1]), ("b", [0, 1], [1, 0])]
    monkeypatch.setattr(sys, "stdout", Output("utf-8", is_terminal=True))
    assert "\x1b[" in text_plot("w", curves)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in text_plot("w", curves)


def test_a_name_cannot_command_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_plot("\x1b[2J", [("\x1b[31m", [0, 1], [0, 1])])
    assert "\x1b" not in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_any_output_can_show_it(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(encoding)
    monkeypatch.setattr(sys, "stdout", output)
    text = text_plot("loss", [("größe 温度", [0, 1, 2], [-2, -1, 0])])
    assert "++" in text
    assert text.replace("größe 温度", "").isascii()
    escape_the_unknown()
    echo_as_is(text + " 0–59")
    output.flush()
    shown = output.written.getvalue().decode(encoding)
    assert "gr" in shown
    assert "59" in shown


@pytest.mark.parametrize(
    "y",
    [[1e17, 1e17], [1e300] * 3, [-1.5e308, 1.7e308], [1.7e308, 0], [0, 5e-324], [1e-310, 3e-310],
     [1.0, 1.0 + 2**-52], [1e16, 1e16 + 2], [0.5], [math.nan, 0.5, math.nan], [1e200, -2e200],
     [0, 0], [-1, -1], [1e6, 1e6 + 1], [None, 2.5], [math.inf, 1, -math.inf, 2], [0.03, 1]],
)  # fmt: skip
@pytest.mark.parametrize("is_log", [False, True])
def test_numbers_of_any_size_are_drawn_and_true(y: list[Any], is_log: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = text_plot("w", [("a", range(len(y)), y)], height=8, is_log=is_log)
    finite = [value for value in y if value is not None and math.isfinite(value)]
    low, high = min(finite), max(finite)
    room = max((high / 2 - low / 2), 2e-2 * max(abs(low), abs(high)), 1e-2 if low == high else 0)
    assert labels(text)
    if not (is_log and low > 0):
        assert all(low / 2 - room <= label / 2 <= high / 2 + room for label in labels(text))
    assert max(map(len, text.splitlines())) <= 60 + 8


def test_a_half_is_labelled_a_half() -> None:
    assert labels(text_plot("w", [("a", [0, 1], [0.03, 1.0])])) == [1, 0.5]
    assert labels(text_plot("w", [("a", [0, 1], [0.01, 1.0])], is_log=True)) == [1, 0.01]


@pytest.mark.parametrize("x", [[0, 0], [1e300, 1e301], [-1.7e308, 1.7e308], [1e17, 1e17], [3, 1]])
def test_x_of_any_size_is_drawn(x: list[float]) -> None:
    assert "a" in text_plot("w", [("a", x, [1, 2])]).splitlines()[-1]


@pytest.mark.parametrize("columns", [10, 36, 60, 80, 120])
def test_it_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = text_plot("w", [("a", range(100), range(100)), ("b", [1], [7])])
    assert max(map(len, text.splitlines())) <= max(columns, 36)


def test_what_has_no_finite_value_is_said() -> None:
    assert text_plot("w", [("a", [0, 1], [None, math.nan])]) == "w: no finite values"


def test_a_preset_is_drawn_in_one_plot(tmp_path: Any) -> None:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        for i in range(5):
            rec.add(train_loss=1.0 / (i + 1), test_loss=2.0 / (i + 1))
            rec.log(i)
    text, whole = plot_text(tmp_path / "run.h5", "loss")
    assert whole
    assert text.splitlines()[-1].split() == ["++", "train", "xx", "test"]


def test_a_terminal_of_all_colours_has_those_of_the_other_plots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", Output("utf-8", is_terminal=True))
    for what, is_own in (("truecolor", True), ("", False)):
        monkeypatch.setenv("COLORTERM", what)
        text = text_plot("loss", [("train", [0, 1], [0, 1])])
        assert ("\x1b[38;2;60;107;232m" in text) == is_own
        assert "\x1b[" in text
