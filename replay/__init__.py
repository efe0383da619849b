"""The viewing side: run recordings, or live values, through meters and plots.

Names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexrec.replay.comparing import compare
    from flexrec.replay.definitions import Definitions, define, load_toml
    from flexrec.replay.flexlogger import FlexLogger, TooledModelLogger, get_preset_logger
    from flexrec.replay.golden import snapshot
    from flexrec.replay.meters import meter_info, meter_types
    from flexrec.replay.player import play
    from flexrec.replay.plots import plot_info, plot_types
    from flexrec.replay.presets import preset, preset_info, preset_names
    from flexrec.replay.window import Trace, Window

__all__ = [
    "Definitions",
    "FlexLogger",
    "TooledModelLogger",
    "Trace",
    "Window",
    "compare",
    "define",
    "get_preset_logger",
    "load_toml",
    "meter_info",
    "meter_types",
    "play",
    "plot_info",
    "plot_types",
    "preset",
    "preset_info",
    "preset_names",
    "snapshot",
]

_HOMES = {
    "Definitions": "definitions",
    "FlexLogger": "flexlogger",
    "TooledModelLogger": "flexlogger",
    "Trace": "window",
    "Window": "window",
    "compare": "comparing",
    "define": "definitions",
    "get_preset_logger": "flexlogger",
    "load_toml": "definitions",
    "meter_info": "meters",
    "meter_types": "meters",
    "play": "player",
    "plot_info": "plots",
    "plot_types": "plots",
    "preset": "presets",
    "preset_info": "presets",
    "preset_names": "presets",
    "snapshot": "golden",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
