"""The user's folder for files that can be made again."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """flexrec's folder of a name below `$XDG_CACHE_HOME`, or `~/.cache`; it may not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that relative paths are ignored.
    base = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    return base / "flexrec" / name
