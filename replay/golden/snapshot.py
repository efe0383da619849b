"""Convert windows to one document, and read and write golden files, which hold such documents.

A golden file is a visdom environment file, which visdom can show. Nothing is compared here.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.recorder.errors import DefinitionError, GoldenError
from flexrec.replay.golden.files import read_json, write_text
from flexrec.replay.plots.registry import plot_type
from flexrec.replay.plots.thinning import thin_window
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.sinks.env_file import ENVIRONMENT, dump, env_document, is_environment

SETTINGS = "flexrec"
"""The document's key for flexrec's own settings; visdom ignores it."""
_ENVIRONMENT = 'which is a visdom environment file ({"jsons": {window id: window}, "reload": {}})'


def snapshot(
    windows: Iterable[Window], *, max_points: int = 0, digits: int | None = None
) -> dict[str, Any]:
    """Convert windows to a document that `compare` compares and `write_golden` writes.

        >>> from flexrec.replay import Trace, Window
        >>> loss = Window("loss", None, "line", (Trace("train", y=[0.5, 0.25], x=[0, 1]),))
        >>> snapshot([loss])["jsons"]["loss"]["content"]["data"][0]["y"]
        [0.5, 0.25]

    Pure: the windows are not changed, and the same windows give the same document with every
    version of visdom. It holds everything that would be sent to visdom. NaN and infinities are
    null, visdom's gap.

    Args:
        windows: any number of windows, of any environments.
        max_points: thin each line to this many points, keeping peaks; 0 keeps all.
        digits: round the values to this many significant digits; None keeps them exact.

    Returns:
        visdom's environment file `{"jsons": {window id: window}, "reload": {}}`; and, if any of
        them is set, `"flexrec"` with `digits`, `max_points`, and `envs`, the environments that
        windows name.

    Raises:
        DefinitionError: a window cannot be drawn, two have the same id, or `max_points` or
            `digits` is out of range.
        MissingDependency: visdom is not installed.
    """
    if max_points < 0 or (digits is not None and not 1 <= digits <= 17):
        raise DefinitionError(
            f"max_points is 0 or more, digits 1 to 17; got {max_points} and {digits}"
        )
    windows = list(windows)
    if digits is not None:  # rounded first, so that thinning does not depend on the last bits
        windows = [_rounded(window, digits) for window in windows]
    document = env_document(thin_window(window, max_points) for window in windows)
    stated: dict[str, Any] = {"digits": digits} if digits is not None else {}
    if max_points:
        stated["max_points"] = max_points
    envs = {window.win: window.env for window in windows if window.env is not None}
    if envs:
        stated["envs"] = envs
    return {**document, SETTINGS: stated} if stated else document


def settings(document: Mapping[str, Any]) -> tuple[int, int | None]:
    """The `max_points` and `digits` that a document was made with.

    >>> settings({"jsons": {}, "reload": {}})
    (0, None)
    """
    stated = document.get(SETTINGS, {})
    return stated.get("max_points", 0), stated.get("digits")


def read_golden(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the document of a golden file, or of any environment file that visdom wrote.

    Raises:
        GoldenError: there is no such file, or it is not an environment file; the message says what
            to do.
    """
    path = Path(path)
    document = read_json(path, _ENVIRONMENT)
    if not _is_golden(document):
        raise GoldenError(f"{path} is no golden, {_ENVIRONMENT}: name another, or remove it")
    whole: dict[str, Any] = document
    return whole


def write_golden(
    path: str | os.PathLike[str],
    document: Mapping[str, Any],
    *,
    overwrite: bool = False,
    inputs: Iterable[Path] = (),
) -> None:
    """Write the document, completely or not at all; missing folders are created.

    Args:
        path: the golden file.
        document: a document of `snapshot`.
        overwrite: whether to overwrite an existing visdom environment file.
        inputs: files that must not be overwritten.

    Raises:
        OutputError: the file cannot be written, or a file exists that may not be overwritten:
            any file, or, with `overwrite`, one that is not a visdom environment file.
    """
    write_text(Path(path), dump(document), ENVIRONMENT, overwrite=overwrite, inputs=inputs)


def _is_golden(document: Any) -> bool:
    if not is_environment(document):
        return False
    stated = document.get(SETTINGS, {})
    return (
        isinstance(stated, dict)
        and isinstance(stated.get("envs", {}), dict)
        and isinstance(stated.get("max_points", 0), int)
        and isinstance(stated.get("digits", 1), int)
    )


def _rounded(window: Window, digits: int) -> Window:
    if plot_type(window.type).shown_as == "image":
        return window
    return replace(window, traces=tuple(_rounded_trace(t, digits) for t in window.traces))


def _rounded_trace(trace: Trace, digits: int) -> Trace:
    if isinstance(trace.y, str) or np.asarray(trace.y).dtype.kind != "f":
        return trace
    y = np.asarray(trace.y, np.float64)
    flat = [float(f"{value:.{digits}g}") for value in y.ravel().tolist()]
    return replace(trace, y=np.array(flat, np.float64).reshape(y.shape))
