"""Read definitions files: TOML tables of plots, meters and alarms, and presets."""

import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import DefinitionError
from flexrec.replay.definitions.alarms import Alarms, define_alarms
from flexrec.replay.definitions.definitions import Definitions, check_names, define
from flexrec.replay.definitions.presets import preset


def load_toml(path: str | os.PathLike[str], *, phases: Iterable[str] = ()) -> Definitions:
    """Read a definitions file: tables `[plots.NAME]` and `[meters.NAME]`, `preset = "…"`, and
    `x = "…"`, one of mark, step, time and relative. Alarms in the file are checked too.

    Args:
        path: the TOML file.
        phases: used instead of the file's `phases`, if given.

    Raises:
        DefinitionError: the file is wrong; names the file, the table and the key.
    """
    path = Path(path)
    tables = _tables(path)
    own_phases = tables.get("phases", [])
    if not (isinstance(own_phases, list) and all(isinstance(p, str) for p in own_phases)):
        raise DefinitionError(f'{path}: phases must be a list of names, such as ["train", "test"]')
    own = define(tables.get("plots", {}), tables.get("meters", {}), where=str(path))
    define_alarms(tables.get("alarms", {}), where=str(path))
    if not isinstance(tables.get("preset", ""), str):
        raise DefinitionError(f"{path}: preset must be a name, such as 'loss+MSE'")
    if "preset" in tables:
        own = preset(tables["preset"], phases=tuple(phases) or own_phases) + own
    try:
        return own.along(tables["x"]) if "x" in tables else own
    except DefinitionError as error:
        raise DefinitionError(f"{path}: {error}") from None


def load_alarms(path: str | os.PathLike[str]) -> Alarms:
    """Read the tables `[alarms.NAME]` of a definitions file; see `define_alarms`.

    Raises:
        DefinitionError: the file is wrong, or has no alarms; names the file, the table and the key.
    """
    path = Path(path)
    tables = _tables(path)
    if "alarms" not in tables:
        raise DefinitionError(f"{path} has no alarms: write a table such as [alarms.nan]")
    return define_alarms(tables["alarms"], where=str(path))


def _tables(path: Path) -> dict[str, Any]:
    """The tables of a definitions file, whose names are checked."""
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
    check_names(str(path), tables, ("plots", "meters", "alarms", "preset", "phases", "x"))
    return tables


def definitions_from(
    *,
    preset_name: str | None = None,
    definitions: Definitions | str | os.PathLike[str] | None = None,
    phases: Sequence[str] | None = None,
) -> Definitions | None:
    """Load definitions from a preset's name, a TOML file or an object; None if none is given.

    Raises:
        DefinitionError: no such preset, or the file is wrong.
    """
    total = Definitions()
    if preset_name is not None:
        total += preset(preset_name, phases=tuple(phases or ()))
    if isinstance(definitions, Definitions):
        total += definitions
    elif definitions is not None:
        total += load_toml(definitions, phases=tuple(phases or ()))
    return total if total.plots or total.auto else None
