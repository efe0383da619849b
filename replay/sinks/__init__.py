"""Sinks, which windows are sent to: a list, a visdom environment file, a visdom server, HTML.

In: complete windows. Out: files, or requests to a server. Open base.py first. Names are imported
when they are first used, since visdom is slow to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexrec.replay.sinks.base import ListSink, Sink
    from flexrec.replay.sinks.env_file import EnvFileSink
    from flexrec.replay.sinks.html import HtmlSink
    from flexrec.replay.sinks.visdom import VisdomSink

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "base",
    "env_file",
    "html",
    "http",
    "resending",
    "visdom",
)

__all__ = ["EnvFileSink", "HtmlSink", "ListSink", "Sink", "VisdomSink"]

_HOMES = {
    "EnvFileSink": "env_file",
    "HtmlSink": "html",
    "ListSink": "base",
    "Sink": "base",
    "VisdomSink": "visdom",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
