"""A file that is written whole or not at all. Recordings, which need more, do it in resuming.py."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write, beside the one whose place it takes where nothing was raised.

        with replacing("run.json") as partial:
            partial.write_text("{}")

    What a link points to is replaced, not the link.

    Raises:
        OSError: it cannot be put in place; what was there is untouched.
    """
    path = Path(path).resolve()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
