"""Shell completion: recordings, keys, presets, meters and plot types when tab is pressed.

A shell waits for this, and shows what it prints. So errors and warnings are swallowed, and what
takes longer than `SECONDS` is given up.
"""

import faulthandler
import os
import re
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

import typer

from flexrec.recorder.errors import FlexrecError

SECONDS = 2.0
_MOST = 200  # names that are offered
_RECORDINGS = 8  # whose keys are offered
_ENDINGS = (".h5", ".hdf5")
_PLAIN = re.compile(r"[\w@%+=:,./~-]+")  # what a shell takes as it is, since names are not quoted


def bounded(find: Callable[[], Iterable[str]]) -> list[str]:
    """The names that `find` finds; none if it fails. The process ends if it takes too long."""
    with open(os.devnull, "wb") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # By a thread without Python code, since reading HDF5 does not let others run.
        faulthandler.dump_traceback_later(SECONDS, exit=True, file=nowhere)
        try:
            return list(islice(find(), _MOST))
        except Exception:  # noqa: BLE001 - a traceback would end up in the command line
            return []
        finally:
            faulthandler.cancel_dump_traceback_later()


def preset_names(incomplete: str) -> list[str]:
    """The presets; after a `+`, those that can follow."""
    from flexrec.replay.definitions.presets import preset_names

    before, plus, _ = incomplete.rpartition("+")
    return bounded(lambda: (before + plus + name for name in preset_names()))


def meter_names() -> list[str]:
    """The meters."""
    from flexrec.replay.meters import meter_types

    return bounded(meter_types)


def plot_names() -> list[str]:
    """The plot types."""
    from flexrec.replay.plots.registry import plot_types

    return bounded(plot_types)


def x_axes() -> list[str]:
    """What x axes can show."""
    from flexrec.replay.definitions.definitions import X_AXES

    return list(X_AXES)


def recordings(incomplete: str) -> list[str]:
    """The recordings in the folder, and its folders; none if the shell's own files do better.

    They do if names must be quoted, and if there are only folders: behind the only name that is
    left, the shell would write a space.
    """
    found = bounded(lambda: _recordings(incomplete))
    has_recordings = any(name.endswith(_ENDINGS) for name in found)
    return found if has_recordings and all(map(_PLAIN.fullmatch, found)) else []


def _recordings(incomplete: str) -> Iterable[str]:
    folder, name = os.path.split(incomplete)
    for entry in sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda e: e.name):
        if entry.name.startswith(name) and (name or not entry.name.startswith(".")):
            if entry.is_dir():
                yield os.path.join(folder, entry.name, "")
            elif entry.name.endswith(_ENDINGS):
                yield os.path.join(folder, entry.name)


def keys(context: typer.Context, incomplete: str) -> list[str]:
    """The keys of the recordings, and of those in folders, that come before on the line."""
    # Its positional arguments, since an option without a value cannot be parsed.
    return bounded(lambda: _keys(context.args, incomplete))


def keys_and_presets(context: typer.Context, incomplete: str) -> list[str]:
    """The keys of the recordings that come before on the command line, and the presets."""
    return [*keys(context, incomplete), *preset_names(incomplete)]


def _keys(places: Iterable[str], incomplete: str) -> Iterable[str]:
    from flexrec.recorder.recording import Recording
    from flexrec.replay.runs.scan import scan

    found, files, left = dict[str, None](), list[str](), _RECORDINGS
    for place in places:
        with suppress(FlexrecError):  # it is not there
            files += [one.path for one in scan([os.path.expanduser(place)])]
    for path in files:
        with suppress(FlexrecError), Recording(path) as run:  # the others may be whole
            found |= dict.fromkeys(key for key in run if key.startswith(incomplete))
            left -= 1
        if not left:
            break
    return filter(_PLAIN.fullmatch, found)
