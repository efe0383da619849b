"""The moments at which Python lets a signal's handler in: at a call or a return."""

import sys
from collections.abc import Callable

from hypothesis import settings

__all__ = ["apart", "at_moment"]


def apart(moments: int) -> int:
    """How many moments further the next trial is: as given in `make search`, else three times."""
    return 3 * moments if settings.default is not None and settings.default.derandomize else moments


def at_moment(moment: int, work: Callable[[], object], handler: Callable[[], object]) -> bool:
    """Run it, and the handler at the n-th moment at which Python would; false: it ended before."""
    left, is_inside, has_come = moment, False, False

    def profile(*_: object) -> None:
        nonlocal left, has_come
        left -= is_inside
        # Once: to collect garbage as it makes ready for this call, Python may call it within.
        if left < 0 and not has_come:
            has_come = True
            sys.setprofile(None)
            handler()

    sys.setprofile(profile)
    try:
        is_inside = True
        work()
        is_inside = False
    finally:
        sys.setprofile(None)
    return has_come
