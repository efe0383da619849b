"""Choose a recording's keys by names and patterns."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from flexrec.recorder.errors import UnknownKeyError, listed, nearest
from flexrec.recorder.recording import Recording


def chosen_keys(run: Recording, patterns: Sequence[str]) -> list[str]:
    """The keys that match a name or pattern, in the recording's order; all if none is given.

    Raises:
        UnknownKeyError: a name or pattern matches no key.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = fitting_keys(run, pattern)
        if not fitting:
            there, near = listed(run) or "none at all", nearest(pattern, run)
            raise UnknownKeyError(
                f"{run.path} has no key that fits {pattern!r}; there are {there}{near}"
            )
        chosen.update(fitting)
    return [key for key in run if not patterns or key in chosen]


def fitting_keys(run: Recording, pattern: str) -> list[str]:
    """The keys that match a name or pattern, in the recording's order."""
    return [key for key in run if key == pattern or fnmatchcase(key, pattern)]
