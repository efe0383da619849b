"""Collect measures that fail: they are left out and named in a warning; training goes on."""

from types import TracebackType

from flexrec.recorder.errors import DefinitionError, listed, warn

_REASONS = 3  # most reasons in one warning


class Failures:
    """Collects what is left out and why, and warns about each once.

    >>> failures = Failures()
    >>> with failures.leaving_out("0/updates"):
    ...     raise RuntimeError("no such operation")
    >>> failures.tell()  # warns: … leaves out 0/updates (RuntimeError: no such operation)
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._warned: set[str] = set()

    def add(self, what: str, error: Exception) -> None:
        """Note that something is left out because of an error."""
        if what not in self._warned:
            self._reasons.setdefault(what, error_line(error))

    def leaving_out(self, *what: str) -> "_LeavingOut":
        """A context manager that adds errors raised in it, under these names joined by slashes."""
        return _LeavingOut(self, what)

    def tell(self) -> None:
        """Warn about new failures."""
        if not self._reasons:
            return
        reasons, self._reasons = self._reasons, {}
        self._warned |= reasons.keys()
        names: dict[str, list[str]] = {}
        for what, why in reasons.items():
            names.setdefault(why, []).append(what)
        reported = [f"{listed(of)} ({why})" for why, of in names.items()]
        warn(f"TooledModel cannot measure everything, and leaves out {listed(reported, _REASONS)}")


class _LeavingOut:
    """A context manager; one is created per tensor, so it is simpler than contextlib's."""

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
            return False  # errors in the caller's request are raised
        self._failures.add("/".join(self._what), error)
        return True


def error_line(error: Exception) -> str:
    """An error in one line; the error itself would keep its traceback's objects alive."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]:.200}" if said else type(error).__name__
