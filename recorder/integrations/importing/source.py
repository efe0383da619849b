"""The results of a format's reader: the events and settings of a run, and what it left out."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from flexrec.recorder.events import Add

NOT_ENDED = "the run has not ended, or was killed"
"""What Notes say of a run without an end."""


class Settings(NamedTuple):
    """Settings of the run, for the recording's config."""

    values: Mapping[str, Any]


Item: TypeAlias = Add | Settings


@dataclass
class Notes:
    """What a reader could not import.

    Attributes:
        left_out: for each kind of value that was left out, how many there were.
        damage: for each file that is damaged, what is wrong with it.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    damage: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """A run of another tool.

    Attributes:
        name: the path of its recording within the folder of all, without an ending.
        files: the files to read.
        read: gives their items; one of them is in memory at a time.
    """

    name: Path
    files: tuple[Path, ...]
    read: Callable[[tuple[Path, ...], Notes], Iterator[Item]]
