"""The results of comparisons: what they found as a whole. Printing one tells it.

How it is told, line by line, is in report.py.
"""

from dataclasses import dataclass
from html import escape
from typing import Any

from flexrec.recorder.errors import counted
from flexrec.replay.diff import report
from flexrec.replay.diff.model import Change, Crossing, First, Keys, RankSplit, Spread

_NOT_RESTORED = {
    "data": ": the data do not go on where they were",
    "optimizer": ": the optimizer was not restored as it was",
    "weights": ": they were not restored as they were",
}


@dataclass(frozen=True)
class RunDiff:
    """What changed between two runs. Printing it gives what `flexrec diff` prints.

    Attributes:
        a, b: what the runs are called.
        equal: whether all that both have, and which keys and values there are, is equal. Config
            and facts are told and do not count.
        steps: how many steps both have.
        last_a, last_b: the last step of each; None: it has none.
        first: the first difference; None where all that both have is equal.
        keys: which keys were compared.
        config, facts: entries that differ.
        spread: how the difference spreads over the layers.
        crossed: when losses and metrics are how far apart.
        notes: what could not be compared or told, in words.
        noise: not used yet: None.
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
    noise: None = None

    def __str__(self) -> str:
        lines = report.settings("config", self.config) or []
        facts = report.settings("facts", self.facts) or []
        amount = f"{counted(self.keys.compared, 'key')}, {counted(self.steps, 'step')}"
        notes = [report.line("note", note) for note in self.notes]
        if self.equal:
            head = f"{self.a} and {self.b} are equal: {amount}"
            return "\n".join([head, *facts, *lines, *notes])
        facts = facts or [report.line("facts", "equal")]
        lines = lines or [report.line("config", "equal")]
        none = report.line("first", f"none: what both have is equal ({amount})")
        lines += report.first(self.first) if self.first else [none]
        lines += report.then(self.spread, self.crossed)
        lines += report.keys(self.keys, (self.a, self.b), (self.last_a, self.last_b))
        return "\n".join([f"{self.a} and {self.b} differ", *facts, *lines, *notes])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def table(self) -> dict[str, Any]:
        """The same as plain JSON values; a number that is not finite is a text."""
        return report.table(self)


@dataclass(frozen=True)
class ResumeAudit:
    """What a resume repeated, compared with what it took back.

    Attributes:
        step: the first step that was recorded again.
        position: where the resume stands among the events.
        repeated: how many steps were recorded twice.
        diff: the two compared.
    """

    step: int
    position: int
    repeated: int
    diff: RunDiff

    def __str__(self) -> str:
        if not self.repeated:
            return "no step was recorded twice"
        repeated = f"{counted(self.repeated, 'step')} repeated"
        first = self.diff.first
        if first is None:
            return f"{repeated}: equal to the bit"
        lost = _NOT_RESTORED.get(first.stage, "") if first.step == self.step else ""
        return f"{repeated}: from step {first.step} on {first.cause}{lost}"


@dataclass(frozen=True)
class RunAudit:
    """Every resume of a recording that repeated steps. Printing it gives what the command prints.

    Attributes:
        run: what the run is called.
        equal: whether all that was repeated is equal.
        resumes: one for each resume that took something back.
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
        """The same as plain JSON values; a number that is not finite is a text."""
        return report.table(self)


@dataclass(frozen=True)
class RanksDiff:
    """What ranks have in common at first and lose. Printing it gives what the command prints.

    Attributes:
        runs: what the recordings are called.
        equal: whether no key that agrees at first differs later.
        agreeing: how many keys agree on all ranks from the first step to the last.
        differing: how many keys never agree, as what each rank measures of its own data.
        split: those that agree at first and then do not, the first first.
    """

    runs: tuple[str, ...]
    equal: bool
    agreeing: int
    differing: int
    split: tuple[RankSplit, ...]

    def __str__(self) -> str:
        ranks = counted(len(self.runs), "rank")
        if self.equal:
            rest = f", {counted(self.differing, 'key')} never did" if self.differing else ""
            return f"{ranks} agree: {counted(self.agreeing, 'key')} to the bit{rest}"
        return "\n".join([f"{ranks} part", *report.splits(self.split)])

    def table(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return report.table(self)
