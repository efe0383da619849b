"""Meters of pictures and texts, which are shown unchanged."""

from typing import Any

import numpy as np

from flexrec.recorder.errors import MeterError
from flexrec.recorder.events import Array
from flexrec.recorder.reduction.validation import array, count
from flexrec.replay.meters.base import Meter

_CHANNELS = (1, 3, 4)


class ImageMeter(Meter):
    """The picture, or batch of pictures, that was added last.

        >>> meter = ImageMeter()
        >>> meter.add(np.zeros((28, 32, 3), np.uint8))
        >>> meter.value().shape
        (3, 28, 32)

    Takes (H, W), (C, H, W) or (H, W, C), with C of 3 or 4 if it comes last, or a batch (N, H, W),
    (N, C, H, W) or (N, H, W, C); values as the plots `image` and `images` take them.
    Gives the same dtype, channels first. Without values gives None: nothing is drawn. O(1) memory.

    Raises:
        MeterError: the shape is another, or there are no pixels.
    """

    fields = ("image",)

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Discard the picture."""
        self._last: Array | None = None

    def add(self, image: Any) -> None:
        """Add a picture or a batch."""
        found = array("image", image, keep=True)
        if found.ndim not in (2, 3, 4) or not found.size:
            raise MeterError(f"image must be (H, W), (C, H, W) or a batch, got {found.shape}")
        if found.ndim > 2 and found.shape[-3] not in _CHANNELS and found.shape[-1] in _CHANNELS[1:]:
            found = np.moveaxis(found, -1, -3)
        if found.ndim == 4 and found.shape[1] not in _CHANNELS:
            raise MeterError(f"image must have 1, 3 or 4 channels, got {found.shape}")
        self._last = found

    def value(self) -> Array | None:
        """The picture or batch that was added last."""
        return self._last


class TextMeter(Meter):
    """The texts since the last reset, one per line.

        >>> meter = TextMeter(lines=2)
        >>> for text in ("a", "b", "c"):
        ...     meter.add(text)
        >>> meter.value()
        'b\\nc'

    Takes a string. Without values gives "". O(lines) memory.

    Args:
        lines: keep this many of the last texts; all by default.

    Raises:
        MeterError: a value is not a string.
    """

    fields = ("text",)

    def __init__(self, lines: int | None = None) -> None:
        self.lines = None if lines is None else count("lines", lines)
        self.reset()

    def reset(self) -> None:
        """Discard all texts."""
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        """Add a text."""
        if not isinstance(text, str):
            raise MeterError(f"text must be a string, got {type(text).__name__}")
        self._texts.append(text)
        if self.lines is not None:
            del self._texts[: -self.lines]

    def value(self) -> str:
        """The texts, joined by line breaks."""
        return "\n".join(self._texts)
