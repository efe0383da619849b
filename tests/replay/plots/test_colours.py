"""The colours of traces: told apart by the colour-blind, on light and on dark ground."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexrec.replay.plots.colours import CYCLE, written
from flexrec.replay.sinks import page

# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
PLOTLYS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40))


def linear(colours: Any) -> Any:
    parts = np.asarray(colours, np.float64) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb: Any) -> Any:
    """CIELAB, D65, of linear RGB."""
    t = (np.clip(rgb, 0, 1) @ XYZ.T) / XYZ.sum(axis=1)
    x, y, z = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def contrast(colour: Any, ground: Any) -> float:
    low, high = sorted(linear([colour, ground]) @ XYZ[1])
    return float((high + 0.05) / (low + 0.05))


def on_dark(colour: Any) -> Any:
    """As `visible` in figure.js."""
    card = DARK
    mixed, white = np.array(colour), 0.1
    while contrast(mixed, card) < 3.5:
        mixed = np.round(np.array(colour) + (255 - np.array(colour)) * white)
        white += 0.1
    return mixed


def dark_card() -> list[int]:
    css = (Path(page.__file__).parent / "page.css").read_text()
    found = re.search(r"data-theme=dark\] \{.*?--card: #(\w{6})", css, re.DOTALL)
    assert found is not None
    return [int(found[1][k : k + 2], 16) for k in (0, 2, 4)]


DARK = dark_card()


def least(colours: Any, sight: str) -> float:
    """How far apart the nearest two colours are, on light and on dark ground."""
    every = []
    for drawn in (np.array(colours), np.array([on_dark(colour) for colour in colours])):
        seen = lab(linear(drawn) @ np.array(SIGHTS[sight]).T)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        every.append(apart[np.triu_indices(len(seen), 1)].min())
    return float(min(every))


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_are_told_apart_by_any_sight(sight: str) -> None:
    assert least(CYCLE[:5], sight) > 22
    assert least(CYCLE, sight) > 17


def test_those_of_plotly_are_not() -> None:
    assert min(least(PLOTLYS, sight) for sight in SIGHTS) < 5


def test_colours_stand_out_from_their_ground() -> None:
    assert min(contrast(colour, (255, 255, 255)) for colour in CYCLE) > 2
    assert min(contrast(on_dark(colour), DARK) for colour in CYCLE) >= 3.5


def test_colours_are_written_as_html_writes_them() -> None:
    assert written(CYCLE[0]) == "#3c6be8"
