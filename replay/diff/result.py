"""The results of comparisons. Printing one describes it; report.py formats the lines."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from flexrec.recorder.errors import counted, listed
from flexrec.replay.diff import report
from flexrec.replay.diff.model import Change, Crossing, First, Keys, Noise, RankSplit, Spread

_RANDOM = ": it was not restored as it was"
_NOT_RESTORED = {
    "data": ": the data do not go on where they were",
    "optimizer": ": the optimizer was not restored as it was",
    "weights": ": they were not restored as they were",
}


class _Printed:
    """Shows in a notebook what printing it gives."""

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


@dataclass(frozen=True)
class RunDiff(_Printed):
    """The differences of two runs. Printing it gives the output of `flexrec diff`.

    Attributes:
        a, b: the names of the runs.
        equal: whether both runs have the same keys, and equal values. Config and facts do not
            count.
        steps: the number of steps that both have.
        last_a, last_b: the last step of each; None: it has none.
        first: the first difference; None if all that both have is equal.
        keys: the keys that were compared.
        config, facts: entries that differ.
        spread: how the difference spreads over the layers.
        crossed: when losses and metrics exceed the limits of relative differences.
        notes: what could not be compared, in words.
        noise: the verdict by the spread of references; None: there are none. With references,
            `equal` says that the run is within their spread, and `first`, `keys.differ` and
            `spread` tell what is not.
    """

    a: str
    b: str
    equal: bool
    steps: int
    last_a: int | None
    last_b: int | None
    first: First | None
    keys: Keys
    config: tuple[Change, ...] = ()
    facts: tuple[Change, ...] = ()
    spread: tuple[Spread, ...] = ()
    crossed: tuple[Crossing, ...] = ()
    notes: tuple[str, ...] = ()
    noise: Noise | None = None

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        if self.equal:
            return f"equal: {self._amount}"
        if self.first is not None:
            return report.headline(self.first)
        return self._no_first("equal")

    def _no_first(self, same: str) -> str:
        """Why the runs are not equal although no value differs."""
        if not self.keys.compared:
            return "they have no key in common"
        if self.noise is not None and not (self.noise.exact or self.noise.keys):
            return "they do not have the same keys and steps; nothing else could be judged"
        return f"what both have is {same} ({self._amount}), but not all is in both"

    @property
    def _amount(self) -> str:
        return f"{counted(self.keys.compared, 'key')}, {counted(self.steps, 'step')}"

    def __str__(self) -> str:
        lines = report.settings("config", self.config) or []
        facts = report.settings("facts", self.facts) or []
        amount = self._amount
        notes = [report.line("note", note) for note in self.notes]
        noise = report.noise(self.noise) if self.noise else []
        is_judged = self.noise is not None and not self.noise.exact
        same = "the same except for noise" if is_judged else "equal"
        if self.equal:
            head = f"{self.a} and {self.b} are {same}: {amount}"
            return "\n".join([head, *facts, *lines, *noise, *notes])
        facts = facts or [report.line("facts", "equal")]
        lines = lines or [report.line("config", "equal")]
        lines += noise
        none = report.line("first", f"none: {self._no_first(same)}")
        lines += report.first(self.first) if self.first else [none]
        lines += report.then(self.spread, self.crossed)
        lines += report.keys(self.keys, (self.a, self.b), (self.last_a, self.last_b))
        return "\n".join([f"{self.a} and {self.b} differ", *facts, *lines, *notes])

    def table(self) -> dict[str, Any]:
        """Convert to plain JSON values; numbers that are not finite become texts."""
        return report.table(self)


@dataclass(frozen=True)
class ResumeAudit:
    """The steps that a resume repeated, compared with the values that they replaced.

    Attributes:
        step: the first step that was recorded again.
        position: the position of the resume among the events.
        repeated: the number of steps that were recorded twice.
        diff: the comparison of both.
        exact: whether equal means to the bit: no tolerance was given.
    """

    step: int
    position: int
    repeated: int
    diff: RunDiff
    exact: bool = True

    def __str__(self) -> str:
        if not self.repeated:
            return "no step was recorded twice"
        repeated = f"{counted(self.repeated, 'step')} repeated"
        first = self.diff.first
        if first is None:
            return f"{repeated}: equal {_how(self.exact)}"
        is_random = first.stage == "data" and first.layer is not None
        lost = _RANDOM if is_random else _NOT_RESTORED.get(first.stage, "")
        where = report.suspects(first)
        since = f"from step {first.step} on{where and f', {where}:'}"
        return f"{repeated}: {since} {first.cause}{lost if first.step == self.step else ''}"


def _how(exact: bool) -> str:
    return "to the bit" if exact else "within the tolerance"


@dataclass(frozen=True)
class RunAudit(_Printed):
    """The resumes of a recording that repeated steps. Printing it gives the command's output.

    Attributes:
        run: the name of the run.
        equal: whether all repeated values are equal.
        resumes: one for each resume that replaced values.
    """

    run: str
    equal: bool
    resumes: tuple[ResumeAudit, ...]

    def __str__(self) -> str:
        if not self.resumes:
            return f"{self.run} repeats no steps: no resume took back what was recorded"
        lines = []
        for each in self.resumes:
            lines.append(f"{self.run}, resumed at step {each.step}: {each}")
            if each.diff.first:
                lines += report.first(each.diff.first)
                lines += report.then(each.diff.spread, each.diff.crossed)
        return "\n".join(lines)

    def table(self) -> dict[str, Any]:
        """Convert to plain JSON values; numbers that are not finite become texts."""
        return report.table(self)


@dataclass(frozen=True)
class RanksDiff(_Printed):
    """The comparison of a run's ranks. Printing it gives the command's output.

    Attributes:
        runs: the names of the recordings.
        equal: whether there is no split.
        agreeing: the number of keys that agree on all ranks from the first step to the last.
        differing: the number of keys that never agree, such as values from each rank's own data.
        split: the keys that agree at first and later differ, in the order in which they do; and
            those of weights if none of them ever agrees, though they are not shards.
        apart: layers whose weights never agree, though those of others do.
        exact: whether agreeing means to the bit: no tolerance was given.
        unlike: keys with steps that were not compared, since their fingerprints are of the CPU on
            some ranks and of an accelerator on others.
    """

    runs: tuple[str, ...]
    equal: bool
    agreeing: int
    differing: int
    split: tuple[RankSplit, ...]
    apart: tuple[str, ...] = ()
    exact: bool = True
    unlike: tuple[str, ...] = ()

    def __str__(self) -> str:
        ranks = counted(len(self.runs), "rank")
        notes = [report.line("note", note) for note in self._notes()]
        if self.equal:
            rest = f", {counted(self.differing, 'key')} never did" if self.differing else ""
            agree = f"{ranks} agree: {counted(self.agreeing, 'key')} {_how(self.exact)}{rest}"
            return "\n".join([agree, *notes])
        return "\n".join([f"{ranks} diverge", *report.splits(self.split), *notes])

    def _notes(self) -> Iterator[str]:
        if self.apart:
            yield f"weights of {listed(self.apart)} never agree, others do"
        if self.unlike:
            keys = listed(self.unlike, most=3)
            yield f"not compared, as some are of the CPU and others of an accelerator: {keys}"

    def table(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return report.table(self)
