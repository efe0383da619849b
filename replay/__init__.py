"""The viewing side: plot recordings, or live values, through meters.

Names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexrec.replay.definitions.definitions import Definitions, define
    from flexrec.replay.definitions.presets import preset, preset_info, preset_names
    from flexrec.replay.definitions.toml import load_toml
    from flexrec.replay.flexlogger import FlexLogger, TooledModelLogger, get_preset_logger
    from flexrec.replay.golden.compare import compare
    from flexrec.replay.golden.snapshot import snapshot
    from flexrec.replay.meters import meter_info, meter_types
    from flexrec.replay.player.player import play
    from flexrec.replay.plots.registry import plot_info, plot_types
    from flexrec.replay.plots.window import Trace, Window
    from flexrec.replay.runs.collection import Runs

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "definitions",
    "diff",
    "export",
    "golden",
    "meters",
    "player",
    "plots",
    "runs",
    "server",
    "sinks",
)

__all__ = [
    "Alarm",
    "Definitions",
    "FlexLogger",
    "Runs",
    "TooledModelLogger",
    "Trace",
    "Window",
    "compare",
    "define",
    "define_alarms",
    "get_preset_logger",
    "load_alarms",
    "load_toml",
    "meter_info",
    "meter_types",
    "play",
    "play_alarms",
    "plot_info",
    "plot_types",
    "preset",
    "preset_info",
    "preset_names",
    "snapshot",
]

_HOMES = {
    "Alarm": "engine.alarms",
    "Definitions": "definitions.definitions",
    "FlexLogger": "flexlogger",
    "Runs": "runs.collection",
    "TooledModelLogger": "flexlogger",
    "Trace": "plots.window",
    "Window": "plots.window",
    "compare": "golden.compare",
    "define": "definitions.definitions",
    "define_alarms": "definitions.alarms",
    "get_preset_logger": "flexlogger",
    "load_alarms": "definitions.toml",
    "load_toml": "definitions.toml",
    "meter_info": "meters",
    "meter_types": "meters",
    "play": "player.player",
    "play_alarms": "player.alarms",
    "plot_info": "plots.registry",
    "plot_types": "plots.registry",
    "preset": "definitions.presets",
    "preset_info": "definitions.presets",
    "preset_names": "definitions.presets",
    "snapshot": "golden.snapshot",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
