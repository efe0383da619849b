"""What could not be measured: it is left out, named in a warning, and training goes on."""

from types import TracebackType

from flexrec.recorder.errors import DefinitionError, listed, warn

_REASONS = 3  # in one warning


class Failures:
    """Collects what is left out, and why, and tells each once.

    >>> failures = Failures()
    >>> with failures.leaving_out("0/updates"):
    ...     raise RuntimeError("no such operation")
    >>> failures.tell()  # warns: … leaves out 0/updates (RuntimeError: no such operation)
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._told: set[str] = set()

    def add(self, what: str, error: Exception) -> None:
        """Something is left out because of an error."""
        if what not in self._told:
            self._reasons.setdefault(what, _line(error))

    def leaving_out(self, *what: str) -> "_LeavingOut":
        """A context that adds what is raised in it, under these names with slashes between."""
        return _LeavingOut(self, what)

    def tell(self) -> None:
        """Warn of what is new."""
        if not self._reasons:
            return
        reasons, self._reasons = self._reasons, {}
        self._told |= reasons.keys()
        names: dict[str, list[str]] = {}
        for what, why in reasons.items():
            names.setdefault(why, []).append(what)
        told = [f"{listed(of)} ({why})" for why, of in names.items()]
        warn(f"TooledModel cannot measure everything, and leaves out {listed(told, _REASONS)}")


class _LeavingOut:
    """Made for every tensor, so it is less than contextlib's."""

    __slots__ = ("_failures", "_what")

    def __init__(self, failures: Failures, what: tuple[str, ...]) -> None:
        self._failures, self._what = failures, what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception) or isinstance(error, DefinitionError):
            return False  # what the caller asked for and cannot be is raised
        self._failures.add("/".join(self._what), error)
        return True


def _line(error: Exception) -> str:
    """An error in one line; the error itself would hold on to much."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]:.200}" if said else type(error).__name__
