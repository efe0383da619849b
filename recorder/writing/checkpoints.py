"""The recorder's state in a training checkpoint, and going back to it."""

import math
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
    """Saves and loads a recorder's state, and warns when a step is recorded twice.

    Args:
        path: the file's name in messages.
        queue, flusher: the recorder's queue and flusher.
        opened: the file as it was opened.
        raises: whether a file that cannot be read raises an error instead of a warning.

    Attributes:
        look_to: the last step whose adds are checked for steps recorded twice.
    """

    def __init__(
        self, path: Path, queue: EventQueue, flusher: Flusher, opened: Opened, *, raises: bool
    ) -> None:
        self._path, self._queue, self._flusher, self._raises = path, queue, flusher, raises
        self._found = opened.file.event_count  # events in the file when it was opened
        self._resumed = 0  # resume marks added since
        self._stated = 0  # the most events that a state of this run counts
        # The last step of earlier runs that is not superseded; NO_STEP if it is unknown, or once
        # a warning about repeated steps was given.
        self._held_to = NO_STEP
        # If the loaded state was taken in the middle of a step: that step, and the keys it had.
        self._amid: tuple[int, frozenset[str]] = NO_STEP, frozenset()
        queue.step = opened.step
        if opened.resumption is not None:
            self._go_on(opened.resumption.first, opened.resumption.step)
            if opened.resumption.held is not None:
                self._held_to = opened.resumption.held
        self.look_to = self._held_to

    # ------------------------------------------------------------------ a state

    def state(self) -> dict[str, Any]:
        """Flush, sync, and return the state, as `Recorder.state_dict` does."""
        flusher, queue = self._flusher, self._queue
        is_done = flusher.write(fsync=True)
        waiting = 0 if is_done else self._waiting()
        if waiting and flusher.failure and queue.refusal is None:
            flusher.warn(
                f"{self._path}: {counted(waiting, 'event')} before this checkpoint could not be "
                f"written to disk: {flusher.failure}"
            )
        flusher.speak()
        queue.refused()
        return self._state(waiting)

    def state_now(self) -> dict[str, Any]:
        """The state of the events that the flusher has, without writing them."""
        return self._state(self._waiting())

    def _waiting(self) -> int:
        return max(self._flusher.count() - self._flusher.safe, 0)

    def _state(self, waiting: int) -> dict[str, Any]:
        events = self._flusher.safe
        self._stated = max(self._stated, events + waiting)
        return {
            "step": self._queue.step,
            "events": events,
            "waiting": waiting,
            "created": self._flusher.created,
            "logs": len(self._flusher.logs(events + waiting)),
            "time": self._queue.now(),
            "amid": sorted(self._keys_here()),
        }

    def _keys_here(self) -> frozenset[str]:
        """The keys already added at the current step."""
        step, latest, (loaded, keys) = self._queue.step, self._flusher.latest(), self._amid
        found = latest.keys if latest.step == step else frozenset[str]()
        return found | keys if loaded == step else found

    # ------------------------------------------------------------------ going back

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to the position of a state, as `Recorder.load_state_dict` does."""
        try:
            step, created = whole_step(state["step"]), float(state["created"])
            events, waiting = operator.index(state["events"]), state.get("waiting", 0)
            events += operator.index(waiting)
            logs = None if state.get("logs") is None else operator.index(state["logs"])
            made = float(state.get("time", math.inf))
            amid = frozenset(map(str, state.get("amid", ())))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not the state of a recorder: {error!r}") from None
        if self._queue.refused():
            return
        self._flusher.flush()
        if created == self._flusher.created and events >= 0:
            self._go_on(self._up_to(events), step)
        else:
            until = self._left(made)
            first = self._first_from(step, until, logs, amid)
            # If nothing is superseded, add no mark: it would supersede events added meanwhile.
            if first is not None:
                self._go_on(first, step)
            self._queue.step = step
        self._held_to = min(self._held_to, step - 1)
        self._amid = step, amid
        self.look_to = step if amid else self._held_to
        self._flusher.flush()

    def _go_on(self, first: int, step: int) -> None:
        """Supersede the events from position `first` on, and continue at `step`."""
        self._queue.mark(fmt.RESUME, float(first), step=step, now=self._queue.now())
        self._queue.step = step
        self._resumed += 1

    def _up_to(self, events: int) -> int:
        """The position after `events` events, or at the end, with a warning, if there are fewer."""
        count = self._flusher.count()
        # This run's resume marks do not count as events of an earlier run's state.
        is_earlier = events > self._stated and count == self._found + self._resumed
        held = self._found if is_earlier else count
        if events > held:
            self._flusher.warn(
                f"{self._path} has {counted(held, 'event')}, and the checkpoint was made after "
                f"{events:,}: the last {events - held:,} before it are missing, because they never "
                "reached the file"
            )
        return min(events, held)

    def _left(self, made: float) -> int:
        """Where training left the timeline of a state made at a time: at the next resume."""
        later = (each.position for each in self._flusher.resumes() if each.time > made)
        return next(later, self._flusher.count())

    def _first_from(
        self, step: int, until: int, logs: int | None, amid: frozenset[str]
    ) -> int | None:
        """The position of the first event that a state of another recording supersedes, if any.

        Args:
            until: consider the events before this position, as they held there.
        """
        held = self._flusher.logs(until)
        search = Search(step if amid else step - 1, amid=amid)
        if logs is not None:
            search.begin = held[min(logs, len(held)) - 1] + 1 if logs > 0 and held else 0
            search.end = held[logs] if 0 <= logs < len(held) else None
        try:
            self._flusher.seen(search, until)
        except FAILURES as error:
            message = f"cannot read what was recorded at step {step} or after it: {briefly(error)}"
            if self._raises:
                raise RecordingError(f"{self._path}: {message}") from None
            self._flusher.warn(f"{self._path}: {message}; it is not superseded")
            return None
        found = search.found(until)
        missing = found.gap
        if not missing and logs is not None and 0 < len(held) < logs:
            missing = (
                f"it has {counted(len(held), 'log')}, and the checkpoint was made after {logs:,}"
            )
        if missing:
            self._flusher.warn(
                f"{self._path}: {missing}; call flush() on every rank before saving a checkpoint"
            )
        if found.mix:
            self._flusher.warn(f"{self._path}: {found.mix}")
        return found.first if found.first < self._flusher.count() else None

    # ------------------------------------------------------------------ repeated steps

    def look_at(self, keys: set[str]) -> int:
        """Warn once if an add repeats a recorded step or key; return `look_to`."""
        step, (loaded, known) = self._queue.step, self._amid
        if self._queue.is_inert:
            return NO_STEP
        if step <= self._held_to:
            self._warn_of_repeats()
        elif step == loaded and not known.isdisjoint(keys):
            self.look_to = self._held_to
            self._flusher.warn(
                f"{self._path}: the checkpoint was made in the middle of step {step}, and keys of "
                "that step are added again: if training repeats the step, its values are recorded "
                "twice and later steps are numbered too high; call state_dict() after step()"
            )
            self._flusher.speak()
        return self.look_to

    def _warn_of_repeats(self) -> None:
        held, self._held_to, self.look_to = self._held_to, NO_STEP, NO_STEP
        step = self._queue.step
        self._flusher.warn(
            f"{self._path}: step {step} is recorded already, as are the steps up to {held}; values "
            "added now are recorded twice. If training continues from an earlier step, pass "
            f'mode="resume", next_step={step}, or use load_state_dict'
        )
        self._flusher.speak()
