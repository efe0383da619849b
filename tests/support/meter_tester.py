"""What every meter is held to, whatever it measures: one table of cases drives it all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from flexrec.replay.meters import Meter

__all__ = ["MeterCase", "check_meter", "close", "equal"]

Adds = Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class MeterCase:
    """One way to build a meter, and what it must then say.

    Attributes:
        name: of the test.
        build: makes the meter.
        adds: the arguments of each `add`.
        reference: what `value()` must give after any number of adds, from first principles.
        empty: what `value()` must give before any.
        wrong: arguments that `add` must refuse.
        merges: whether a recorded state may stand for what is added.
    """

    name: str
    build: Callable[[], Meter]
    adds: Adds
    reference: Callable[[Adds], Any]
    empty: Any
    wrong: Adds = field(default=())
    merges: bool = False


def check_meter(case: MeterCase, tensor: Callable[[Any], Any] | None = None) -> None:
    """Hold a meter to its case; `tensor` turns arrays into what is given by hand."""
    meter = case.build()
    for _ in range(2):  # anew after a reset
        assert equal(meter.value(), case.empty), f"{meter.value()} is not {case.empty}"
        for n, args in enumerate(case.adds, 1):
            _refuses(meter, case.wrong)
            meter.add(*(map(tensor, args) if tensor else args))
            found, wanted = meter.value(), case.reference(case.adds[:n])
            assert close(found, wanted), f"after {n} adds: {found} is not {wanted}"
            assert equal(meter.value(), found), "reading changes it"
        assert isinstance(found, tuple) == (len(meter.fields) > 1)
        assert len(meter.fields) == (len(found) if isinstance(found, tuple) else 1)
        meter.reset()
    _check_merging(case)


def _refuses(meter: Meter, wrong: Adds) -> None:
    """Every wrong add raises, and leaves the meter as it was."""
    before = meter.value()
    for args in wrong:
        with pytest.raises((ValueError, TypeError)):
            meter.add(*args)
        assert equal(meter.value(), before), f"changed by {args}"


def _check_merging(case: MeterCase) -> None:
    """Merging the states of single adds is, to the bit, adding."""
    raw, merged = case.build(), case.build()
    assert (merged.reduction is not None) == case.merges
    if merged.reduction is None:
        return
    for args in case.adds:
        state = merged.reduction.state_of(*args)
        raw.add(*args)
        assert all(isinstance(part, (float, str, np.ndarray)) for part in state)
        merged.merge(*state)
        assert equal(merged.value(), raw.value())


def equal(a: Any, b: Any) -> bool:
    """Whether two values are the same to the bit, NaN equal to NaN."""
    if isinstance(a, tuple) or isinstance(b, tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    if a is None or b is None or isinstance(a, str) or isinstance(b, str):
        return bool(a == b) and type(a) is type(b)
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)


def close(a: Any, b: Any, rtol: float = 1e-12) -> bool:
    """Whether two values are the same but for rounding; integers exactly."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(close(x, y, rtol) for x, y in zip(a, b, strict=True))
    if a is None or b is None or isinstance(a, str) or isinstance(b, str):
        return equal(a, b)
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind in "biu":
        return a.dtype == b.dtype and np.array_equal(a, b)
    return a.shape == b.shape and np.allclose(a, b, rtol=rtol, atol=0, equal_nan=True)
