"""Read TensorBoard's event files: scalars, histograms, images, texts, tensors, hyperparameters.

TensorBoard's own messages decode the records, and its own function checks them, byte for byte in
Python: records of more than 64 KiB, such as pictures, are not checked. Tested with tensorboard
2.21.
"""

import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flexrec.recorder.errors import MissingDependency
from flexrec.recorder.events import Add, State
from flexrec.recorder.integrations.importing.histograms import histogram_state
from flexrec.recorder.integrations.importing.source import Item, Notes, Settings

try:
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.util.tensor_util import make_ndarray
except ImportError as missing:
    raise MissingDependency.of("TensorBoard's event files", "tensorboard") from missing

TEXT_ENDING = "/text_summary"
"""What torch's SummaryWriter adds to the tag of a text."""

_HEAD, _CHECK = struct.Struct("<QI"), struct.Struct("<I")  # length, its checksum; the record's
_CHECKED = 1 << 16  # bytes: the checksum of a longer record takes too long in Python
_KNOWN = (None, "file_version", "session_log", "summary")  # of what events may tell
_MOST = 1 << 22  # elements of a tensor that is stored in fewer bytes


def read_events(files: tuple[Path, ...], notes: Notes) -> Iterator[Item]:
    """The values in event files, in the order of the files' names."""
    plugins = dict[str, str]()  # by tag; not every value tells it
    for path in files:
        with path.open("rb") as file:
            for event in _events(path, file, notes):
                if (what := event.WhichOneof("what")) not in _KNOWN:
                    notes.left_out[f"{what}"] += 1
                for value in event.summary.value:
                    if value.metadata.plugin_data.plugin_name:
                        plugins[value.tag] = value.metadata.plugin_data.plugin_name
                    plugin = plugins.get(value.tag, "")
                    try:
                        yield from _items(event, value, plugin, notes)
                    except KeyError:  # such as VARIANT
                        notes.left_out[f"tensor of type {value.tensor.dtype}"] += 1
                    except (DecodeError, TypeError, ValueError):  # whatever a file may hold
                        notes.left_out[f"damaged {plugin}".strip()] += 1


def _events(path: Path, file: BinaryIO, notes: Notes) -> Iterator[Any]:
    """The events of a file that are whole, up to a length that cannot be relied on."""
    size = path.stat().st_size
    while head := file.read(_HEAD.size):
        where = file.tell() - len(head)
        length, check = _HEAD.unpack(head) if len(head) == _HEAD.size else (size, 0)
        if len(head) == _HEAD.size and masked_crc32c(head[:8]) != check:
            notes.damage.append(f"{path}: damaged at byte {where:,}; the rest is left out")
            return
        if length > size - file.tell() - _CHECK.size:
            notes.damage.append(f"{path}: its last record is not whole, and left out")
            return
        data = file.read(length)
        if _is_damaged(data, file.read(_CHECK.size)):
            notes.damage.append(f"{path}: damaged at byte {where:,}; this record is left out")
            continue
        try:
            yield Event.FromString(data)
        except DecodeError:
            notes.damage.append(f"{path}: no event at byte {where:,}; this record is left out")


def _is_damaged(data: bytes, check: bytes) -> bool:
    return len(data) <= _CHECKED and masked_crc32c(data) != _CHECK.unpack(check)[0]


def _items(event: Any, value: Any, plugin: str, notes: Notes) -> Iterator[Item]:
    """The items of a summary's value; `plugin` says what the value is."""
    if plugin == "hparams":
        yield from _settings(value.metadata.plugin_data.content)
        return
    tag, found = value.tag, None
    kind = plugin or value.WhichOneof("value") or "nothing"
    if value.HasField("simple_value"):
        found = value.simple_value
    elif value.HasField("histo"):
        found = _histogram(value.histo)
    elif value.HasField("image"):
        found = _pixels([value.image.encoded_image_string])
    elif value.HasField("tensor"):
        array = _decoded(value.tensor)
        if plugin == "text":
            tag, found = tag.removesuffix(TEXT_ENDING), _text(array, notes)
        elif plugin == "images":
            found = _pixels(array[2:].tolist())
        elif plugin == "histograms":
            found = histogram_state(*np.reshape(array, (-1, 3)).T)
        elif plugin in ("", "scalars", "tensor") and array.dtype.kind in "biuf":
            found = float(array) if plugin == "scalars" or not array.ndim else array
    if found is None:
        notes.left_out[kind] += 1
    else:
        yield Add({tag: found}, event.step, event.wall_time)


def _decoded(tensor: Any) -> Any:
    """A tensor's elements; a few bytes may stand for many equal ones, but not for too many."""
    if math.prod(dim.size for dim in tensor.tensor_shape.dim) > max(_MOST, tensor.ByteSize()):
        raise ValueError("it is too large")
    return make_ndarray(tensor)


def _settings(content: bytes) -> Iterator[Settings]:
    data = HParamsPluginData.FromString(content)
    if data.HasField("session_start_info"):
        read = {
            name: getattr(value, value.WhichOneof("kind") or "", None)
            for name, value in data.session_start_info.hparams.items()
        }
        yield Settings(read)


def _histogram(histo: Any) -> State:
    """What HistogramMeter would have counted; the outermost buckets end at the extremes."""
    right = np.array(histo.bucket_limit)
    left = np.concatenate([[histo.min], right[:-1]])
    left, right = (np.clip(each, histo.min, histo.max) for each in (left, right))
    return histogram_state(left, right, histo.bucket)


def _text(array: Any, notes: Notes) -> str:
    return "\n".join(
        notes.text(each) if isinstance(each, bytes) else str(each)
        for each in array.ravel().tolist()
    )


def _pixels(encoded: list[bytes]) -> Any:
    """The pictures (C, H, W) or (N, C, H, W); None if they cannot be read."""
    try:
        from PIL import Image
    except ImportError:
        return None
    try:
        arrays = [np.asarray(Image.open(io.BytesIO(each))) for each in encoded]
        arrays = [a[None] if a.ndim == 2 else np.moveaxis(a, -1, 0) for a in arrays]
        return arrays[0] if len(arrays) == 1 else np.stack(arrays)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
