"""The training side: record metrics and layer statistics to HDF5, and read them back.

Names are imported when they are first used, so that a command line that needs none of h5py, numpy
and torch loads none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexrec.recorder.errors import (
        DefinitionError,
        FlexrecError,
        InputError,
        MeterError,
        NotARecordingError,
        RecordingError,
        ServerError,
        VersionError,
    )
    from flexrec.recorder.merging import merge_recordings
    from flexrec.recorder.reader import Recording, Series
    from flexrec.recorder.recorder import Recorder
    from flexrec.recorder.tooled_model import TooledModel

__all__ = [
    "DefinitionError",
    "FlexrecError",
    "InputError",
    "MeterError",
    "NotARecordingError",
    "Recorder",
    "Recording",
    "RecordingError",
    "Series",
    "ServerError",
    "TooledModel",
    "VersionError",
    "merge_recordings",
]

_HOMES = {
    "Recorder": "recorder",
    "Recording": "reader",
    "Series": "reader",
    "TooledModel": "tooled_model",
    "merge_recordings": "merging",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
