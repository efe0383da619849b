"""Collect values that a meter or a plot cannot take, and why."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

from flexrec.recorder.errors import FlexrecError, MeterError, counted


@dataclass(frozen=True)
class LeftOut:
    """Values of one key that one meter could not take, or one plot could not draw.

    Attributes:
        key: the recorded key.
        meter: the meter's name in the definitions.
        why: the reason, for the first of them.
        step: the step at which the first was added, if a meter refused it.
        x: the mark at which the first was to be drawn, if a plot refused it.
        count: the number of values.
        run: the name of the recording, if there are several.
    """

    key: str
    meter: str
    why: str
    step: int | None = None
    x: float | None = None
    count: int = 1
    run: str | None = None

    def __str__(self) -> str:
        run = f"{self.run}: " if self.run else ""
        at = f" at step {self.step}" if self.step is not None else ""
        at += f" at x = {self.x:g}" if self.x is not None else ""
        more = f" (and {counted(self.count - 1, 'more value')})" if self.count > 1 else ""
        return f"{run}{self.key!r}{at}: {self.why}{more}"


class LeftOuts:
    """Collects values that are left out: the first at each place, and the count.

        >>> found = LeftOuts()
        >>> for step in (3, 4):
        ...     found.note("loss", LeftOut("loss", "loss", "no number", step=step))
        >>> [str(left) for left in found]
        ["'loss' at step 3: no number (and 1 more value)"]

    Args:
        strict: raise an error at the first value instead.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._found: dict[Hashable, LeftOut] = {}
        self._news: list[LeftOut] = []

    def note(self, place: Hashable, left: LeftOut, error: type[FlexrecError] = MeterError) -> None:
        """Count one more at a place, such as a meter of a key.

        Raises:
            FlexrecError: of the type given, if `strict`.
        """
        before = self._found.get(place)
        if before is None:
            self.put(place, left, error)
        else:
            self._found[place] = replace(before, count=before.count + left.count)

    def put(self, place: Hashable, left: LeftOut, error: type[FlexrecError] = MeterError) -> None:
        """Replace the entry of a place; raises as `note`."""
        if self._strict:
            raise error(str(left))
        if place not in self._found:
            self._news.append(left)
        self._found[place] = left

    def forget(self, place: Hashable) -> None:
        """Remove the entry of a place."""
        self._found.pop(place, None)

    def news(self) -> list[LeftOut]:
        """The entries of places that are new since the last call."""
        news, self._news = self._news, []
        return news

    def __iter__(self) -> Iterator[LeftOut]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)
