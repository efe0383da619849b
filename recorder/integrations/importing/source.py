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

    def text(self, data: bytes) -> str:
        """The text in UTF-8; what is not UTF-8 becomes U+FFFD, and is counted as left out."""
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self.left_out["text with bytes that are not UTF-8, which are replaced by \ufffd"] += 1
            return data.decode("utf-8", "replace")


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
