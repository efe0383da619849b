"""Record metrics and layer statistics to HDF5 during training, and read them back.

Names are imported on first use, so that commands that do not need h5py, numpy or torch do not
load them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexrec.recorder.errors import (
        DamagedError,
        DefinitionError,
        ExistsError,
        FlexrecError,
        GoldenError,
        InputError,
        MeterError,
        MissingDependency,
        NotARecordingError,
        OutputError,
        QueryError,
        RecordingError,
        ServerError,
        UnknownKeyError,
        VersionError,
        WorkerError,
    )
    from flexrec.recorder.layers.tooled_model import TooledModel
    from flexrec.recorder.maintenance.merge import merge_recordings
    from flexrec.recorder.recorder import Recorder
    from flexrec.recorder.recording import Recording
    from flexrec.recorder.storage.series import Series

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "errors",
    "events",
    "files",
    "integrations",
    "layers",
    "maintenance",
    "recording",
    "reduction",
    "storage",
)

__all__ = [
    "DamagedError",
    "DefinitionError",
    "ExistsError",
    "FlexrecError",
    "GoldenError",
    "InputError",
    "MeterError",
    "MissingDependency",
    "NotARecordingError",
    "OutputError",
    "QueryError",
    "Recorder",
    "Recording",
    "RecordingError",
    "Series",
    "ServerError",
    "TooledModel",
    "UnknownKeyError",
    "VersionError",
    "WorkerError",
    "merge_recordings",
]

_HOMES = {
    "Recorder": "recorder",
    "Recording": "recording",
    "Series": "storage.series",
    "TooledModel": "layers.tooled_model",
    "merge_recordings": "maintenance.merge",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from flexrec.recorder.errors import MissingDependency

        raise MissingDependency.of(name, "torch") from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
