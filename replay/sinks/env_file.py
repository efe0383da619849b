"""The sink that writes visdom environment files. No requests are sent here.

visdom is imported only when a file is written, and only through visdom.py.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import DefinitionError
from flexrec.recorder.files.atomic_write import Kind, check_target, replacing
from flexrec.replay.plots.thinning import thin_window
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.base import placed
from flexrec.replay.sinks.palette import Palette

_NOT_IN_NAMES = '/\\\n\r\0<>:"|?*'  # on some system


class EnvFileSink:
    """Writes a visdom environment file when it is closed; no server is needed.

        sink = EnvFileSink("my_env.json")
        sink.show(windows)
        sink.close()

    A visdom server that is started on the file's folder shows `my_env.json` as the environment
    `my_env`. The windows of another environment `E` are written to `my_env-E.json` beside it. The
    same windows give the same bytes with every version of visdom; only the last bit of logarithms
    depends on the processor.

    Args:
        path: the file; it is written completely or not at all.
        env: the environment of windows that name none; by default the file's name without its
            suffix.
        max_points: thin each trace to this many points; 0 keeps all.
        overwrite: whether to overwrite existing visdom environment files.

    Raises:
        OutputError: a file exists that may not be overwritten; the message says which.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        env: str | None = None,
        max_points: int = 2000,
        overwrite: bool = False,
    ) -> None:
        check_target(path, ENVIRONMENT, overwrite=overwrite)
        self.path, self._overwrite = Path(path), overwrite
        self.env = env or self.path.stem
        self.max_points = max_points
        self.paths: list[Path] = []
        """The files written; empty before `close`."""
        self._windows: dict[str, dict[str, Window]] = {self.env: {}}

    def show(self, windows: Sequence[Window]) -> None:
        """Take in these windows."""
        for window in placed(windows).values():
            self._windows.setdefault(window.env or self.env, {})[window.win] = window

    def remove(self, window: Window) -> None:
        """Take a window away, if it is there."""
        self._windows.get(window.env or self.env, {}).pop(window.win, None)

    def close(self) -> None:
        """Write the files; a second call does nothing.

        Raises:
            DefinitionError: a window cannot be drawn, or two environments have the same file name.
            OutputError: a file exists that may not be overwritten; then nothing is written.
            OSError: a file cannot be written; an existing file is unchanged.
        """
        if self.paths:
            return
        files = {self._path(env): windows for env, windows in self._windows.items()}
        if len({str(path).casefold() for path in files}) < len(self._windows):
            raise DefinitionError(
                f"environments {', '.join(map(repr, self._windows))} differ only in upper and "
                "lower case, or in characters that a file's name cannot have: rename one"
            )
        texts = {
            path: dump(env_document(windows.values(), max_points=self.max_points))
            for path, windows in files.items()
        }
        for path in texts:
            check_target(path, ENVIRONMENT, overwrite=self._overwrite)
        for path, text in texts.items():
            with replacing(path, ENVIRONMENT, overwrite=self._overwrite) as partial:
                partial.write_text(text, encoding="ascii", newline="\n")
        self.paths = list(texts)

    def _path(self, env: str) -> Path:
        if env == self.env:
            return self.path
        name = "".join("_" if char in _NOT_IN_NAMES else char for char in env)
        return self.path.with_name(f"{self.path.stem}-{name}{self.path.suffix}")


def is_environment(document: Any) -> bool:
    """Whether a JSON document has the form of visdom's environment files.

    >>> is_environment({"jsons": {}, "reload": {}})
    True
    """
    return (
        isinstance(document, dict)
        and isinstance(document.get("jsons"), dict)
        and all(isinstance(w, dict) and "content" in w for w in document["jsons"].values())
    )


def _holds_environment(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.read(64).lstrip().startswith(b"{"):  # the file may be large
            return False
    try:
        return is_environment(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError):
        return False


ENVIRONMENT = Kind("a visdom environment file", _holds_environment)


def env_document(windows: Iterable[Window], *, max_points: int = 0) -> dict[str, Any]:
    """The content of visdom's environment file for windows.

        >>> env_document([])
        {'jsons': {}, 'reload': {}}

    It holds no random values: a window's `contentID` is its id, its `i` counts the windows, and its
    `version` is 1. visdom 0.2.4 and 0.3.0 give the same document, and both show it.

    Args:
        windows: the windows; their environments are ignored.
        max_points: thin each trace to this many points; 0 keeps all.

    Raises:
        DefinitionError: a window cannot be drawn, or two have the same id.
        MissingDependency: visdom is not installed.
    """
    # visdom is slow to import, and needed only for writing.
    from flexrec.replay.sinks.visdom import literal, payload

    kept: dict[str, Any] = {}
    for window in Palette().paint(list(windows)):
        if window.win in kept:
            raise DefinitionError(f"two windows {window.win!r}: an environment holds one of an id")
        kept[window.win] = _kept(literal(payload(thin_window(window, max_points))), len(kept))
    return {"jsons": kept, "reload": {}}


def dump(document: Mapping[str, Any]) -> str:
    """Convert the document to JSON text that is easy to review: a line for each array of numbers.

        >>> print(dump({"b": [1, 2], "a": {"c": [[1, 2], [3, 4]]}}), end="")
        {
         "a": {
          "c": [
           [1, 2],
           [3, 4]
          ]
         },
         "b": [1, 2]
        }

    Keys are in alphabetical order, only ASCII is used, and the same document gives the same text.

    Raises:
        ValueError: the document has a NaN or an infinity, which JSON does not allow.
    """
    return f"{_pretty(document, '')}\n"


def _kept(message: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The window that visdom's server makes from a message to its endpoint `events`."""
    opts, first = message["opts"], message["data"][0]
    if first["type"] in ("image", "text"):
        content, kind = first["content"], first["type"]
    else:
        content, kind = {"data": message["data"], "layout": message["layout"]}, "plot"
    return {
        "command": "window",
        "content": content,
        "contentID": message["win"],
        "height": opts.get("height"),
        "i": index,
        "id": message["win"],
        "inflate": opts.get("inflate", True),
        "title": opts["title"],
        "type": kind,
        "version": 1,  # 0.3.0 cannot update a window without it
        "width": opts.get("width"),
    }


def _pretty(node: Any, indent: str) -> str:
    if isinstance(node, Mapping) and any(_is_deep(item) for item in node.values()):
        items = [f"{json.dumps(k)}: {_pretty(node[k], f'{indent} ')}" for k in sorted(node)]
        opening, closing = "{", "}"
    elif isinstance(node, list) and any(_is_deep(item) for item in node):
        items = [_pretty(item, f"{indent} ") for item in node]
        opening, closing = "[", "]"
    else:
        return json.dumps(node, sort_keys=True, allow_nan=False)
    lines = ",\n".join(f"{indent} {item}" for item in items)
    return f"{opening}\n{lines}\n{indent}{closing}"


def _is_deep(item: Any) -> bool:
    return isinstance(item, Mapping | list) and bool(item)
