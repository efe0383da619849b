"""Read definitions files: TOML tables and presets."""

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path

from flexrec.recorder.errors import DefinitionError
from flexrec.replay.definitions.definitions import Definitions, check_names, define
from flexrec.replay.definitions.presets import preset


def load_toml(path: str | os.PathLike[str], *, phases: Iterable[str] = ()) -> Definitions:
    """Read a definitions file: tables `[plots.NAME]` and `[meters.NAME]`, `preset = "…"`, and
    `x = "…"`, one of mark, step, time and relative.

    Args:
        path: the TOML file.
        phases: used instead of the file's `phases`, if given.

    Raises:
        DefinitionError: the file is wrong; names the file, the table and the key.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path} is not TOML: {error}") from None
    except RecursionError:
        raise DefinitionError(
            f"{path} cannot be read: its tables or lists are nested too deeply"
        ) from None
    check_names(str(path), tables, ("plots", "meters", "preset", "phases", "x"))
    own_phases = tables.get("phases", [])
    if not (isinstance(own_phases, list) and all(isinstance(p, str) for p in own_phases)):
        raise DefinitionError(f'{path}: phases must be a list of names, such as ["train", "test"]')
    own = define(tables.get("plots", {}), tables.get("meters", {}), where=str(path))
    if not isinstance(tables.get("preset", ""), str):
        raise DefinitionError(f"{path}: preset must be a name, such as 'loss+MSE'")
    if "preset" in tables:
        own = preset(tables["preset"], phases=tuple(phases) or own_phases) + own
    try:
        return own.along(tables["x"]) if "x" in tables else own
    except DefinitionError as error:
        raise DefinitionError(f"{path}: {error}") from None
