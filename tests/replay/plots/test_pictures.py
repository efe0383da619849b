"""Arrays become the pictures that a person expects."""

import base64

import numpy as np
import pytest

from flexrec.replay.plots.pictures import decoded, grid, pixels

RAMP = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)


def test_gray_becomes_three_equal_channels() -> None:
    for given in (RAMP, RAMP[0]):
        np.testing.assert_array_equal(pixels(given), np.repeat(RAMP, 3, axis=0))


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_stay(channels: int) -> None:
    picture = np.arange(channels * 6, dtype=np.uint8).reshape(channels, 2, 3)
    np.testing.assert_array_equal(pixels(picture), picture)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (RAMP.astype(np.float32) / 255, RAMP),
        (RAMP.astype(np.float64), RAMP),
        (RAMP.astype(np.int64), RAMP),
        (RAMP.astype(np.float16) / 127.5 - 1, RAMP),
        (np.array([[-300, 300, 7]]), [[0, 255, 7]]),
        (np.array([[0.0, 300.0, 6.6]]), [[0, 255, 7]]),
        (np.array([[-2.0, 3.0, 0.5, np.nan, np.inf, -np.inf]]), [[0, 255, 128, 0, 255, 0]]),
        (np.array([[-0.5, 1.5, 0.5]], np.float16), [[0, 255, 128]]),
        (np.array([[0.0, 1.0, np.nan, np.inf, -np.inf]]), [[0, 255, 0, 255, 0]]),
        (np.array([[-1.0, 0.0, 1.0, np.nan]]), [[0, 128, 255, 0]]),
        (np.array([[np.nan]]), [[0]]),
        (np.array([[True, False]]), [[255, 0]]),
    ],
)
def test_scales(given: np.ndarray, expected: object) -> None:
    np.testing.assert_array_equal(pixels(given)[0], np.squeeze(np.array(expected)).reshape(
        given.shape[-2:]))  # fmt: skip


@pytest.mark.parametrize("shape", [(3,), (2, 4, 4), (5, 4, 3), (0, 4), (1, 1, 4, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="channels"):
        pixels(np.zeros(shape))


def test_other_values_are_refused() -> None:
    with pytest.raises(ValueError, match="numbers"):
        pixels(np.array([["a"]]))


def test_a_grid_lays_rows_of_pictures_on_white() -> None:
    batch = np.arange(3, dtype=np.uint8).reshape(3, 1, 1)
    assert grid(batch, nrow=2, padding=0)[0].tolist() == [[0, 1], [2, 255]]
    assert grid(batch, nrow=2, padding=1)[0].tolist() == [
        [255, 255, 255, 255, 255, 255],
        [255, 0, 255, 255, 1, 255],
        [255, 255, 255, 255, 255, 255],
        [255, 255, 255, 255, 255, 255],
        [255, 2, 255, 255, 255, 255],
        [255, 255, 255, 255, 255, 255],
    ]


def test_a_grid_has_visdoms_size_and_one_scale() -> None:
    batch = np.stack([np.full((3, 5, 7), 0.5), np.full((3, 5, 7), 1.0)])
    laid = grid(batch)
    assert laid.shape == (3, 5 + 4, 2 * (7 + 4))
    assert set(np.unique(laid)) == {128, 255}


def test_decoded_undoes_what_is_sent() -> None:
    with pytest.raises(ValueError, match="not a picture's data URL"):
        decoded("http://elsewhere/picture.png")
    nonsense = base64.b64encode(b"nonsense").decode()
    with pytest.raises(ValueError, match="holds no picture"):
        decoded(f"data:image/png;base64,{nonsense}")
