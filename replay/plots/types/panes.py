"""Panes without axes: image, images and text."""

import html
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.replay.plots.pairs import pictures
from flexrec.replay.plots.pictures import grid, is_batch, is_picture, pixels
from flexrec.replay.plots.plot_type import PANE, Message, PlotType, Traces

PICTURE_SIDE = 256  # pixels to which a small picture is about enlarged
BATCH_SIDE = 720  # the same for several pictures side by side
_EARLIER = 19  # pictures of earlier marks that a window keeps
PANE_WIDTH = 120  # pixels of a window's bar for a title
PANE_BAR, CAPTION = 10, 12  # pixels that visdom subtracts from a picture's height


def _image(client: Any, traces: Traces, opts: Message) -> Message:
    return _picture(client, pixels(traces[0].y), opts, PICTURE_SIDE)


def _images(client: Any, traces: Traces, opts: Message) -> Message:
    layout = {name: int(opts.pop(name)) for name in ("nrow", "padding") if name in opts}
    batch = np.asarray(traces[0].y)
    side = PICTURE_SIDE if len(batch) == 1 else BATCH_SIDE
    if is_batch(batch) and not {"width", "height"} & set(opts):
        scale = _scale(batch, side, **layout)  # of the pictures alone: the padding stays narrow
        batch = batch.repeat(scale, axis=-2).repeat(scale, axis=-1)
    return _picture(client, grid(batch, **layout), opts, side)


def _scale(batch: NDArray[Any], side: int, *, nrow: int = 8, padding: int = 2) -> int:
    """How many times larger each picture of a batch may be, so that the sheet fits the side."""
    columns = max(1, min(nrow, len(batch)))
    rows = -(-len(batch) // columns)
    height, width = map(int, batch.shape[-2:])
    across = (side // columns - 2 * padding) // width
    down = (side // rows - 2 * padding) // height
    return max(1, min(across, down))


def _picture(client: Any, picture: NDArray[np.uint8], opts: Message, side: int) -> Message:
    if len(picture) == 4:
        opts.pop("jpgquality", None)  # JPEG has no alpha
    opts = {**_pane(picture.shape[1], picture.shape[2], opts, side), **opts}
    message: Message
    message, _ = client.image(img=picture, opts=opts)
    return message


def _pane(height: int, width: int, opts: Message, side: int) -> dict[str, int]:
    """The size of a window that shows the whole picture undistorted, and enlarged to the side."""
    beside = PANE_BAR + (CAPTION if opts.get("caption") else 0)
    if "width" in opts:
        scale = float(opts["width"]) / width
    elif "height" in opts:
        scale = max(1.0, float(opts["height"]) - beside) / height
    else:
        scale = max(1, side // max(height, width))
    return {
        "width": max(PANE_WIDTH, round(width * scale)),
        "height": round(height * scale) + beside,
    }


def _text(client: Any, traces: Traces, opts: Message) -> Message:
    shown = "<br>".join(html.escape(line) for line in traces[0].y.splitlines())
    message: Message
    message, _ = client.text(text=shown, opts=opts)
    return message


PANES = (
    PlotType(
        name="image",
        doc="a picture",
        takes="(height, width) or (channels, height, width), channels 1, 3 or 4 (with alpha); "
        "integers 0 to 255, or floats 0 to 1, -1 to 1 or 0 to 255",
        ranks=("matrix", "3-D"),
        condition=is_picture,
        opts=PANE | {"caption", "jpgquality"},
        max_traces=1,
        draw=_image,
        shown_as="image",
        keeps=_EARLIER,
        side_by_side=pictures,
    ),
    PlotType(
        name="images",
        doc="pictures side by side, nrow (8) in a row, with padding (2) pixels around each",
        takes="(batch, height, width) or (batch, channels, height, width), values as for image",
        ranks=("3-D", "4-D"),
        condition=is_batch,
        opts=PANE | {"caption", "jpgquality", "nrow", "padding"},
        max_traces=1,
        draw=_images,
        shown_as="image",
        keeps=_EARLIER,
        side_by_side=pictures,
    ),
    PlotType(
        name="text",
        doc="a text; HTML in it is shown as text, not rendered",
        takes="a string; its line breaks are kept",
        ranks=("text",),
        opts=PANE,
        max_traces=1,
        draw=_text,
        shown_as="text",
    ),
)
