"""Say where alarms would have gone off in recordings: each key's values, in order, and the marks.

The alarms are those of the engine fed event by event; a property test checks that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from flexrec.recorder.errors import warn
from flexrec.recorder.events import Log, Reset
from flexrec.recorder.recording import Recording
from flexrec.replay.definitions.alarms import Alarms
from flexrec.replay.engine.alarms import Alarm, AlarmEngine, WatchedKey
from flexrec.replay.engine.left_out import LeftOut
from flexrec.replay.player.player import run_names

_Placed = tuple[tuple[int, int, int], Alarm]  # its event's place in the recording, and the alarm


class PlayedAlarms(NamedTuple):
    """The alarms that would have gone off, and the values that their meters could not take."""

    alarms: list[Alarm]
    left_out: list[LeftOut]


def play_alarms(recordings: Recording | Sequence[Recording], alarms: Alarms) -> list[Alarm]:
    """Say where alarms would have gone off, in the order of the recordings and their events.

    >>> alarms = define_alarms({"high": {"key": "train_loss", "above": 0.4}})
    >>> [alarm.step for alarm in play_alarms(Recording("run.h5"), alarms)]
    [0]

    A value that an alarm's meter cannot take is left out, with one warning for each alarm of a
    key; a pattern passes over such values.

    Args:
        recordings: one recording, or several.
        alarms: from `define_alarms` or `load_alarms`.
    """
    runs = [recordings] if isinstance(recordings, Recording) else list(recordings)
    names = run_names([run.path for run in runs]) if len(runs) > 1 else [None]
    found = list[Alarm]()
    for name, run in zip(names, runs, strict=True):
        played = alarms_of_run(run, alarms, name=name)
        for left in played.left_out:
            warn(f"left out: {left}")
        found += played.alarms
    return found


def alarms_of_run(
    run: Recording, alarms: Alarms, *, name: str | None = None, strict: bool = False
) -> PlayedAlarms:
    """The alarms of one recording, which bear the name.

    Raises:
        MeterError: a meter cannot take a value, if `strict`.
    """
    engine = AlarmEngine(alarms, strict=strict)
    marks = list(_marks(run))
    placed = [each for key in run for each in _of_key(run, engine.watched(key), key, marks)]
    placed.sort(key=lambda each: (each[0], engine.order(each[1])))
    return PlayedAlarms(
        [replace(alarm, run=name) for _, alarm in placed],
        [replace(left, run=name) for left in engine.left_out],
    )


def unwatched(recording: Recording, alarms: Alarms) -> list[str]:
    """Why alarms cannot go off in the recording: no key of theirs, or no log at which to look."""
    has_logs = bool(recording.marks.is_log.any())
    notes = list[str]()
    for alarm in alarms:
        if not any(map(alarm.meter.matches, recording)):
            notes.append(f"{alarm.name}: no recorded key matches {alarm.meter.key!r}")
        elif alarm.at == "log" and not has_logs:
            notes.append(f'{alarm.name}: it is read at logs, and there are none; use at = "value"')
    return notes


def _marks(run: Recording) -> Iterator[tuple[int, Log | Reset]]:
    """The recorded logs and resets, each with the number of events before it."""
    marks = run.marks
    for i, keys in enumerate(marks.keys):
        step, time = int(marks.step[i]), float(marks.time[i])
        if marks.is_log[i]:
            event: Log | Reset = Log(float(marks.x[i]), keys, bool(marks.reset[i]), step, time)
        else:
            event = Reset(keys, step, time)
        yield int(marks.position[i]), event


def _of_key(
    run: Recording, watched: list[WatchedKey], key: str, marks: Sequence[tuple[int, Log | Reset]]
) -> Iterator[_Placed]:
    """The alarms of one key, each with the place of its event."""
    if run.is_number(key):
        watched = _loud(run, watched, key)
    elif run.kind(key) == "text":  # such as the lines of the console, which are many
        watched = [each for each in watched if not each.is_deaf_to_texts]
    if not watched:
        return
    at, has_begun = 0, False
    for row in run.rows(key):
        while not has_begun and at < len(marks) and marks[at][0] <= row.position:
            at += 1  # the meter is made at the first value
        has_begun = True
        while at < len(marks) and marks[at][0] <= row.position:
            yield from _at_mark(watched, at, *marks[at])
            at += 1
        for each in watched:
            alarm = each.add(row.value, row.step, row.time)
            if alarm is not None:
                yield (row.position, 1, 0), alarm
    for i in range(at, len(marks)):
        yield from _at_mark(watched, i, *marks[i])


def _loud(run: Recording, watched: list[WatchedKey], key: str) -> list[WatchedKey]:
    """Those that may go off, as far as a look at whole columns of numbers can tell."""
    loud = list[WatchedKey]()
    for _, (_, values) in run.columns.numbers(key) if watched else ():
        loud += [each for each in watched if each not in loud and not each.is_quiet_over(values)]
        if len(loud) == len(watched):
            break
    return [each for each in watched if each in loud]


def _at_mark(
    watched: list[WatchedKey], i: int, position: int, event: Log | Reset
) -> Iterator[_Placed]:
    for each in watched:
        alarm = each.mark(event)
        if alarm is not None:
            yield (position, 0, i), alarm
