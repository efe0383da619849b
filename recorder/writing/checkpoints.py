"""Checkpoints: where a recording is, for a training program's own, and how it goes back there."""

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrec.recorder.errors import InputError, RecordingError, counted
from flexrec.recorder.events import STEPS, whole_step
from flexrec.recorder.storage import format as fmt
from flexrec.recorder.writing.event_queue import EventQueue
from flexrec.recorder.writing.flusher import FAILURES, Flusher, briefly
from flexrec.recorder.writing.opening.create import Opened, Search

NO_STEP = STEPS[0] - 1


class Checkpoints:
    """Gives a recording's state, and has it go on from one; says where steps come twice.

    Args:
        path: what the file is called in messages.
        queue, flusher: what is recorded, and how it reaches the file.
        opened: the file as it was opened.
        raises: whether a file that cannot be read is an error, not a warning.

    Attributes:
        look_to: up to which step adds are looked at for steps that come twice.
    """

    def __init__(
        self, path: Path, queue: EventQueue, flusher: Flusher, opened: Opened, *, raises: bool
    ) -> None:
        self._path, self._queue, self._flusher, self._raises = path, queue, flusher, raises
        self._found = opened.file.event_count  # events that were there at first
        self._resumed = 0  # marks of resumes since
        # The last step that earlier runs recorded and that holds; none has it where that is not
        # known, or where steps that come again were warned of.
        self._held_to = NO_STEP
        # The step amid which the state that was loaded was taken, and the keys that it had.
        self._amid: tuple[int, frozenset[str]] = NO_STEP, frozenset()
        queue.step = opened.step
        if opened.resumption is not None:
            self._go_on(opened.resumption.first, opened.resumption.step)
            if opened.resumption.held is not None:
                self._held_to = opened.resumption.held
        self.look_to = self._held_to

    # ------------------------------------------------------------------ a state

    def state(self) -> dict[str, Any]:
        """What `Recorder.state_dict` gives."""
        flusher, queue = self._flusher, self._queue
        is_done = flusher.write(fsync=True)
        waiting = 0 if is_done else self._waiting()
        if waiting and flusher.failure and queue.refusal is None:
            flusher.warn(
                f"{self._path}: a checkpoint's state was asked for, and {counted(waiting, 'event')}"
                f" before it could not be brought to the disk: {flusher.failure}"
            )
        flusher.speak()
        queue.refused()
        return self._state(waiting)

    def state_now(self) -> dict[str, Any]:
        """The same, of what has come to the flusher, whether or not it is on the disk."""
        return self._state(self._waiting())

    def _waiting(self) -> int:
        return max(self._flusher.count() - self._flusher.safe, 0)

    def _state(self, waiting: int) -> dict[str, Any]:
        events = self._flusher.safe
        return {
            "step": self._queue.step,
            "events": events,
            "waiting": waiting,
            "created": self._flusher.created,
            "logs": len(self._flusher.logs(events + waiting)),
            "amid": sorted(self._keys_here()),
        }

    def _keys_here(self) -> frozenset[str]:
        """What was added at the current step already."""
        step, latest, (loaded, keys) = self._queue.step, self._flusher.latest(), self._amid
        found = latest.keys if latest.step == step else frozenset[str]()
        return found | keys if loaded == step else found

    # ------------------------------------------------------------------ going back

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to where a state was taken, as `Recorder.load_state_dict` says."""
        try:
            step, created = whole_step(state["step"]), float(state["created"])
            events, waiting = operator.index(state["events"]), state.get("waiting", 0)
            events += operator.index(waiting)
            logs = None if state.get("logs") is None else operator.index(state["logs"])
            amid = frozenset(map(str, state.get("amid", ())))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not the state of a recorder: {error!r}") from None
        if self._queue.refused():
            return
        self._flusher.flush()
        if created == self._flusher.created and events >= 0:
            self._go_on(self._up_to(events), step)
        else:
            first = self._first_from(step, logs, amid)
            # Where nothing is superseded there is no mark: it would hide what is added meanwhile.
            if first is not None:
                self._go_on(first, step)
            self._queue.step = step
        self._held_to = min(self._held_to, step - 1)
        self._amid = step, amid
        self.look_to = step if amid else self._held_to
        self._flusher.flush()

    def _go_on(self, first: int, step: int) -> None:
        """Take back the events from position `first` on; go on at the step."""
        self._queue.mark(fmt.RESUME, float(first), step=step, now=self._queue.now())
        self._queue.step = step
        self._resumed += 1

    def _up_to(self, events: int) -> int:
        """The position after so many events, or, where there are fewer, after those."""
        count = self._flusher.count()
        # The marks of this run's resumes are none of an earlier run's events.
        held = self._found if count == self._found + self._resumed else count
        if events > held:
            self._flusher.warn(
                f"{self._path} has {counted(held, 'event')}, and the checkpoint was made after "
                f"{events:,}: the last {events - held:,} before it are missing, for they never "
                "reached the file"
            )
        return min(events, held)

    def _first_from(self, step: int, logs: int | None, amid: frozenset[str]) -> int | None:
        """The position of the first event that another recording's state supersedes, if any."""
        held = self._flusher.logs()
        search = Search(step if amid else step - 1, amid=amid)
        if logs is not None:
            search.begin = held[min(logs, len(held)) - 1] + 1 if logs > 0 and held else 0
            search.end = held[logs] if 0 <= logs < len(held) else None
        try:
            count = self._flusher.seen(search)
        except FAILURES as error:
            message = f"cannot read what was recorded at step {step} or after it: {briefly(error)}"
            if self._raises:
                raise RecordingError(f"{self._path}: {message}") from None
            self._flusher.warn(f"{self._path}: {message}; it is not superseded")
            return None
        found = search.found(count)
        missing = found.gap
        if not missing and logs is not None and 0 < len(held) < logs:
            missing = (
                f"it has {counted(len(held), 'log')}, and the checkpoint was made after {logs:,}"
            )
        if missing:
            self._flusher.warn(
                f"{self._path}: {missing}; at a checkpoint every rank calls flush(), before it is "
                "saved"
            )
        if found.mix:
            self._flusher.warn(f"{self._path}: {found.mix}")
        return found.first if found.first < count else None

    # ------------------------------------------------------------------ steps that come twice

    def look_at(self, keys: set[str]) -> int:
        """Warn once of what was added at a step that is recorded already; give `look_to`."""
        step, (loaded, known) = self._queue.step, self._amid
        if self._queue.is_inert:
            return NO_STEP
        if step <= self._held_to:
            self._warn_of_repeats()
        elif step == loaded and not known.isdisjoint(keys):
            self.look_to = self._held_to
            self._flusher.warn(
                f"{self._path}: the checkpoint was made amid step {step}, and what was added there "
                "already is added again: where training does that step anew, it is there twice, "
                "and later ones have too high a number; take state_dict() after step()"
            )
            self._flusher.speak()
        return self.look_to

    def _warn_of_repeats(self) -> None:
        held, self._held_to, self.look_to = self._held_to, NO_STEP, NO_STEP
        step = self._queue.step
        self._flusher.warn(
            f"{self._path}: step {step} is recorded already, as are those up to {held}: from now "
            "on it is there twice; where training goes on with it again, say so with "
            f'mode="resume", next_step={step}, or with load_state_dict'
        )
        self._flusher.speak()
