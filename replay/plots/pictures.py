"""Convert arrays to the 8-bit pictures that visdom shows. No visdom, no files."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHANNELS = (1, 3, 4)


def decoded(src: str) -> NDArray[np.uint8]:
    """Decode the `src` of a window's picture to pixels (height, width, channels).

        >>> dot = "R0lGODlhAQABAIAAAP8AAAAAACH5BAEAAAEALAAAAAABAAEAAAICRAEAOw=="
        >>> decoded(f"data:image/gif;base64,{dot}").shape
        (1, 1)

    Pictures are compared by their pixels, since versions of PNG libraries compress differently.

    Raises:
        ValueError: not a data URL that holds a picture.
    """
    from PIL import Image, UnidentifiedImageError  # installed with visdom, slow to import

    head, _, packed = src.partition(";base64,")
    if not head.startswith("data:image/"):
        raise ValueError(f"not a picture's data URL: {src[:40]!r}")
    try:
        with Image.open(io.BytesIO(base64.b64decode(packed, validate=True))) as picture:
            return np.asarray(picture, dtype=np.uint8)
    except UnidentifiedImageError as error:
        raise ValueError(f"the data URL holds no picture: {src[:40]!r}") from error


def is_picture(image: Any) -> bool:
    """Whether `pixels` takes the value.

    >>> is_picture(np.zeros((3, 5, 5))), is_picture(np.zeros((2, 5, 5)))
    (True, False)
    """
    shape = np.shape(image)
    return 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[0] in _CHANNELS))


def is_batch(images: Any) -> bool:
    """Whether `grid` takes the value.

    >>> is_batch(np.zeros((8, 5, 5))), is_batch(np.zeros((0, 5, 5)))
    (True, False)
    """
    shape = np.shape(images)
    return 0 not in shape and (len(shape) == 3 or (len(shape) == 4 and shape[1] in _CHANNELS))


def pixels(image: Any) -> NDArray[np.uint8]:
    """Convert a picture to (3 or 4, height, width), 0 to 255.

        >>> pixels([[0.0, 1.0]]).tolist()
        [[[0, 255]], [[0, 255]], [[0, 255]]]

    Integers are read as 0 to 255. Floats within 0 to 1, or within −1 to 1, are scaled to 0 to 255;
    so are other floats of which some are negative, as those of normalised pictures, from the least
    to the greatest. Others are read as 0 to 255. Values outside are clipped, NaN is black.

    Args:
        image: (height, width), or (channels, height, width) of 1, 3 or 4 channels.

    Raises:
        ValueError: the shape is another, or there are no pixels.
    """
    if not is_picture(image):
        raise ValueError(
            f"an image is (height, width) or (channels, height, width) with 1, 3 or 4 channels, "
            f"not {np.shape(image)}"
        )
    array = np.asarray(image)
    scaled = _scaled(array[np.newaxis] if array.ndim == 2 else array)
    return np.repeat(scaled, 3, axis=0) if len(scaled) == 1 else scaled


def grid(images: Any, *, nrow: int = 8, padding: int = 2) -> NDArray[np.uint8]:
    """Arrange the pictures of a batch in one picture (3 or 4, height, width), 0 to 255.

        >>> grid(np.zeros((3, 5, 5)), nrow=2, padding=1).shape
        (3, 14, 14)

    They share one scale, chosen as in `pixels`; the padding is white.

    Args:
        images: (batch, height, width), or (batch, channels, height, width).
        nrow: the number of pictures in a row.
        padding: pixels around each picture.

    Raises:
        ValueError: the shape is another, there are no pictures, nrow is below 1, or padding is
            below 0.
    """
    if not is_batch(images):
        raise ValueError(
            "images are (batch, height, width) or (batch, channels, height, width) with 1, 3 or "
            f"4 channels, not {np.shape(images)}"
        )
    if nrow < 1 or padding < 0:
        raise ValueError(f"nrow is at least 1 and padding at least 0, not {nrow} and {padding}")
    batch = np.asarray(images)
    batch = batch[:, np.newaxis] if batch.ndim == 3 else batch
    count, channels = batch.shape[:2]
    columns = min(nrow, count)
    rows = -(-count // columns)
    edge = (padding, padding)
    around = ((0, rows * columns - count), (0, 0), edge, edge)
    tiles = np.pad(_scaled(batch), around, constant_values=255)
    height, width = tiles.shape[2:]
    sheet = tiles.reshape(rows, columns, channels, height, width).transpose(2, 0, 3, 1, 4)
    return pixels(sheet.reshape(channels, rows * height, columns * width))


def _scaled(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype == bool:
        return np.where(values, 255, 0).astype(np.uint8)
    if values.dtype.kind not in "iuf":
        raise ValueError(f"an image holds numbers, not {values.dtype}")
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        least, greatest = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        values = np.nan_to_num(values.astype(np.float64), nan=np.nan, posinf=1e9, neginf=-1e9)
        if greatest <= 1 and least >= 0:
            values = values * 255.0
        elif greatest <= 1 and least >= -1:
            values = (values + 1.0) * 127.5
        elif least < 0:
            values = (values - float(least)) * (255.0 / (float(greatest) - float(least)))
        values = np.rint(np.nan_to_num(values, nan=0.0))
    scaled: NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return scaled
