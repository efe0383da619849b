"""Choose the workers: by a number, or by a Dask client."""

from typing import TYPE_CHECKING, Any, TypeAlias

from flexrec.replay.runs.workers.spread import Workers

if TYPE_CHECKING:
    from distributed import Client

Wanted: TypeAlias = "int | Client | Workers | None"
"""A number of processes of this machine; a Dask client; workers; None: this process alone."""


def workers_of(wanted: Any) -> Workers | None:
    """The workers.

    Raises:
        TypeError: it is neither a number nor a client.
        ValueError: the number is less than 1.
    """
    if wanted is None or hasattr(wanted, "work"):
        return wanted  # type: ignore[no-any-return]
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        from flexrec.replay.runs.workers.local import LocalWorkers

        return LocalWorkers(wanted)
    from flexrec.replay.runs.workers.cluster import ClusterWorkers

    return ClusterWorkers(wanted)
