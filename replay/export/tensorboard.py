"""Write a recording's keys as a TensorBoard event file, with TensorBoard's own writer.

Numbers are written as float64, so that nothing is rounded.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.recorder.errors import MissingDependency
from flexrec.recorder.events import State
from flexrec.recorder.files.atomic_write import Kind, replacing, writing
from flexrec.recorder.integrations.importing.tensorboard import TEXT_ENDING
from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.series import Series
from flexrec.replay.export.tables import Written, table_pieces
from flexrec.replay.export.tracked import bins_of, config_of, utf8

try:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR, DATA_CLASS_TENSOR, Summary
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.summary.writer.record_writer import RecordWriter
    from tensorboard.util.tensor_util import make_tensor_proto
except ImportError as missing:
    raise MissingDependency.of("TensorBoard's event files", "tensorboard") from missing

_EXACT_BITS = 53
_VERSION = b"brain.Event:2"


def _holds_events(path: Path) -> bool:
    with path.open("rb") as file:
        return _VERSION in file.read(64)


EVENTS = Kind("an event file of TensorBoard", _holds_events)


def write_events(run: Recording, keys: Sequence[str], folder: Path, overwrite: bool) -> Written:
    """Write an event file, named by the recording, in a folder; return the number of values."""
    path, count = folder / f"events.out.tfevents.{run.path.stem}", 0
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (
            replacing(path, EVENTS, overwrite=overwrite, inputs=[run.path]) as partial,
            partial.open("wb") as file,
        ):
            writer = RecordWriter(file)
            writer.write(Event(file_version=_VERSION.decode()).SerializeToString())
            if config := config_of(run):
                writer.write(Event(summary=hparams_pb(_settings(config))).SerializeToString())
            for event in _events(run, keys):
                writer.write(event.SerializeToString())
                count += 1
    return Written(count)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, (bool, float)) or _is_float64(value) else str(value)
        for name, value in config.items()
    }


def _is_float64(value: Any) -> bool:
    """Whether a value is an integer that a float64 holds exactly."""
    return isinstance(value, int) and value.bit_length() <= _EXACT_BITS


def _events(run: Recording, keys: Sequence[str]) -> Iterator[Any]:
    plain = [key for key in keys if run.columns.is_plain(key)]
    told = dict[str, str]()  # what each key was told to be last
    for piece in table_pieces(run, plain):
        yield from _of_piece(piece, told)
    for key in keys:
        if key not in plain:
            for row in run.rows(key):
                yield _event(key, row.step, row.time, row.value, told)


def _of_piece(piece: Series, told: dict[str, str]) -> Iterator[Any]:
    values = piece.value if isinstance(piece.value, list) else piece.value.tolist()
    for step, time, value in zip(piece.step.tolist(), piece.time.tolist(), values, strict=True):
        yield _event(piece.key, step, time, value, told)


def _event(key: str, step: int, time: float, found: Any, told: dict[str, str]) -> Any:
    if isinstance(found, State):
        plugin, data = "histograms", _rows(found)
    elif isinstance(found, str):
        plugin, data = "text", np.array([utf8(found).encode()], object)
    else:
        plugin, data = "scalars", np.array(found, np.float64)
    value = Summary.Value(tag=_tag(key, plugin), tensor=make_tensor_proto(data))
    if told.get(key) != plugin:
        told[key] = plugin
        value.metadata.plugin_data.plugin_name = plugin
        is_scalar = plugin == "scalars"
        value.metadata.data_class = DATA_CLASS_SCALAR if is_scalar else DATA_CLASS_TENSOR
    return Event(step=step, wall_time=time, summary=Summary(value=[value]))


def _tag(key: str, plugin: str) -> str:
    """The tag of a key; what torch's SummaryWriter adds to a text's is no part of a key."""
    is_taken = plugin == "text" and key.endswith(TEXT_ENDING)
    return f"{key}{TEXT_ENDING}" if is_taken else key


def _rows(state: State) -> Any:
    """A histogram's bins (left, right, count), (N, 3)."""
    counts, edges = bins_of(state)
    return np.stack([edges[:-1], edges[1:], counts], 1)
