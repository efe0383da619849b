"""Record metrics and layer statistics while training; decide afterwards how to plot them.

    import flexrec

    with flexrec.Recorder("run.h5") as rec:
        rec.add(train_loss=0.5)
        rec.log(epoch=0)

    windows = flexrec.play(flexrec.Recording("run.h5"), flexrec.preset("loss"))

Names are imported when they are first used. flexrec.recorder is the training side, flexrec.replay
the viewing side, flexrec.cli the command line. Everything that these do not export is internal.
"""

import sys

# typing and importlib are slow to import, and during the command's first imports a Ctrl-C would
# print a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flexrec.recorder import Recorder, Recording, TooledModel
    from flexrec.recorder.integrations.tensorboard import SummaryWriter
    from flexrec.replay import (
        FlexLogger,
        Runs,
        TooledModelLogger,
        define,
        get_preset_logger,
        load_toml,
        meter_info,
        meter_types,
        play,
        plot_info,
        plot_types,
        preset,
        preset_info,
        preset_names,
    )
    from flexrec.replay.diff.compare import diff

    __version__: str

__all__ = [
    "FlexLogger",
    "Recorder",
    "Recording",
    "Runs",
    "SummaryWriter",
    "TooledModel",
    "TooledModelLogger",
    "__version__",
    "define",
    "diff",
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
]

_RECORDER = ("Recorder", "Recording", "TooledModel")
_HOMES = {
    "SummaryWriter": "recorder.integrations.tensorboard",
    "diff": "replay.diff.compare",  # flexrec.replay.diff is the folder
}


def __getattr__(name: str) -> "Any":
    if name == "__version__":
        from importlib.metadata import version

        return version("flexrec")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = _HOMES.get(name, "recorder" if name in _RECORDER else "replay")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _show_in_notebooks() -> None:
    """Tell IPython, if this process is a notebook's, how to show recordings and windows."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        from importlib import import_module

        import_module(f"{__name__}.replay.sinks.notebook").register(shell)


_show_in_notebooks()
