"""Convert what `flexrec check` and `plot_check` are given to windows."""

import os
from contextlib import ExitStack
from typing import Any

from flexrec.recorder.errors import DefinitionError
from flexrec.recorder.recording import Recording
from flexrec.replay.definitions.definitions import Definitions
from flexrec.replay.flexlogger import FlexLogger, TooledModelLogger
from flexrec.replay.player.player import Played, play_all
from flexrec.replay.plots.window import Window


def played_from(
    source: Any,
    definitions: Definitions | None = None,
    *,
    every: int | None = None,
    strict: bool = False,
) -> Played:
    """The windows that a source draws, and the values left out of them.

    Args:
        source: a recording or its path, several of them, a FlexLogger or TooledModelLogger that
            has logged, or a list of windows.
        definitions: what to draw of recordings; by default all keys. For a logger leave it out, or
            pass the logger's own plots and meters.
        every, strict: as in `play`; only for recordings.

    Raises:
        DefinitionError: definitions are missing or not the logger's.
        RecordingError: a recording cannot be read.
        TypeError: the source is none of these.
    """
    if isinstance(source, TooledModelLogger):
        source = source.logger
    if isinstance(source, FlexLogger):
        _check_same(source, definitions, every)
        return Played(source.windows(), source.left_out)
    several = list(source) if isinstance(source, list | tuple) else [source]
    if several and all(isinstance(item, Window) for item in several):
        if definitions is not None or every is not None:
            raise DefinitionError("windows are already drawn: give no preset, definitions or every")
        return Played(several, [])
    if not several or not all(isinstance(r, str | os.PathLike | Recording) for r in several):
        raise TypeError(
            "what is checked is a recording or its path, a list of them, a FlexLogger or a list of "
            f"windows, not {type(source).__name__}"
        )
    with ExitStack() as stack:
        runs = [
            run if isinstance(run, Recording) else stack.enter_context(Recording(run))
            for run in several
        ]
        return play_all(runs, definitions, every=every, strict=strict)


def _check_same(logger: FlexLogger, definitions: Definitions | None, every: int | None) -> None:
    if every is not None:
        raise DefinitionError("a logger has already logged: `every` is only for recordings")
    if definitions is None or definitions.auto:
        return
    if not logger.draws(definitions):
        raise DefinitionError(
            f"the logger draws {logger.get_definitions()}, not the definitions that were given: "
            f"{definitions.by_plot()}"
        )
