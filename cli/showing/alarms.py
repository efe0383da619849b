"""`flexrec replay --alarms`: where alarms would have gone off in recordings."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from flexrec.cli.output import echo, echo_json
from flexrec.cli.progress import counting
from flexrec.cli.replaying import tell_left_out, tell_state
from flexrec.recorder.errors import RecordingError, counted
from flexrec.recorder.recording import Recording
from flexrec.replay.definitions.alarms import Alarms
from flexrec.replay.definitions.toml import load_alarms
from flexrec.replay.player.alarms import PlayedAlarms, alarms_of_run, unwatched
from flexrec.replay.player.player import run_names


def tell_alarms(
    paths: Sequence[Path], path: Path, *, are_many: bool, strict: bool, as_json: bool
) -> bool:
    """Print the alarms of a TOML file that would have gone off; return whether none did.

    Of many recordings, those that cannot be read are named and passed over; then the result is
    false, too.

    Raises:
        DefinitionError: the file is wrong.
        RecordingError: one of a few recordings cannot be read.
        MeterError: a meter cannot take a value, if `strict`.
    """
    alarms = load_alarms(path)
    names = run_names(list(paths)) if len(paths) > 1 else [None]
    found, is_whole = list[PlayedAlarms](), True
    with counting() as tell:
        for i, (name, one) in enumerate(zip(names, paths, strict=True)):
            try:
                found.append(_alarms_of(one, alarms, name, strict=strict))
            except RecordingError as error:
                if not are_many:
                    raise
                is_whole = False
                echo(f"flexrec: {error}", err=True)
            tell(i + 1, len(paths))
    _print(found, as_json=as_json)
    return is_whole and not any(played.alarms for played in found)


def _alarms_of(path: Path, alarms: Alarms, name: str | None, *, strict: bool) -> PlayedAlarms:
    with Recording(path) as run:
        tell_state(run)
        for note in unwatched(run, alarms):
            echo(f"flexrec: {path}: {note}", err=True)
        played = alarms_of_run(run, alarms, name=name, strict=strict)
    tell_left_out(played.left_out)
    return played


def _print(found: Sequence[PlayedAlarms], *, as_json: bool) -> None:
    alarms = [alarm for played in found for alarm in played.alarms]
    if as_json:
        left_out = [str(left) for played in found for left in played.left_out]
        echo_json({"alarms": list(map(asdict, alarms)), "left_out": left_out})
        return
    for alarm in alarms:
        echo(str(alarm))
    echo(f"{counted(len(alarms), 'alarm')} in {counted(len(found), 'recording')}")
