"""Numbers under keys that came together before take the short way: it changes nothing."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flexrec.recorder import InputError, Recorder, Recording
from flexrec.recorder.events import normalise
from support.event_cases import same
from support.recorders import recorder

INTERLOPERS: list[Any] = [
    True,
    3,
    2**60 + 1,
    -0.0,
    math.nan,
    math.inf,
    Fraction(1, 3),
    np.float32(0.1),
    np.float64(1e300),
    np.int8(-3),
    np.uint64(2**64 - 1),
    np.bool_(True),
    np.longdouble(0.5),
    np.array(2.5),
    np.array([1.5]),
    np.arange(6.0).reshape(2, 3),
    torch.tensor(2.5),
    torch.tensor(2.5, requires_grad=True),
    torch.tensor(7),
    torch.tensor([1.5]),
    torch.arange(6.0),
    torch.tensor(1.5, dtype=torch.bfloat16),
    torch.tensor(1.5).to_sparse(),
    torch.nn.Parameter(torch.tensor(0.5)),
    "text",
    (1.0, 2.0),
    [0.5],
    None,
]


@pytest.mark.parametrize("number", [float, torch.tensor])
@pytest.mark.parametrize("value", INTERLOPERS, ids=repr)
def test_what_comes_among_numbers_comes_back_as_it_is_normalised(
    tmp_path: Path, value: Any, number: Callable[[float], Any]
) -> None:
    given = [number(0.5), number(0.5), value, number(0.25), value, value, number(0.125)]
    with recorder(tmp_path / "run.h5") as rec:
        for some in given:
            rec.add({"a": some, "b": number(1.0)})
    with Recording(tmp_path / "run.h5") as run:
        value = run["a"].value
        found = value.tolist() if isinstance(value, np.ndarray) else value
        assert run["b"].value.tolist() == [1.0] * len(given)
    wanted = [normalise("a", some) for some in given if some is not None]
    assert len(found) == len(wanted)
    assert all(same(left, right) for left, right in zip(found, wanted, strict=True))


@pytest.mark.parametrize("value", [1j, np.complex64(1), {}, b"", object(), 10**400])
def test_what_is_no_number_among_numbers_is_refused_and_leaves_no_trace(
    tmp_path: Path, value: Any
) -> None:
    with recorder(tmp_path / "run.h5") as rec:
        for _ in range(2):
            rec.add({"a": 0.5, "b": 1.0})
        for _ in range(2):
            with pytest.raises(InputError, match="'b'"):
                rec.add({"a": 0.5, "b": value})
        rec.add({"a": 0.25, "b": 2.0})
    with Recording(tmp_path / "run.h5") as run:
        assert run["a"].value.tolist() == [0.5, 0.5, 0.25]
        assert run["b"].value.tolist() == [1.0, 1.0, 2.0]


def test_the_sum_of_the_values_does_not_matter(tmp_path: Path) -> None:
    rows: list[list[float]] = [
        [1e308, 1e308],
        [math.inf, -math.inf],
        [2**70, -(2**70)],
        [0.0, -0.0],
        [1, 2],
    ]
    with recorder(tmp_path / "run.h5") as rec:
        for row in rows:
            rec.add(dict(zip("ab", row, strict=True)))
    with Recording(tmp_path / "run.h5") as run:
        found = list(zip(run["a"].value.tolist(), run["b"].value.tolist(), strict=True))
    assert found == [tuple(map(float, row)) for row in rows]


class Odd:
    """Adding it to anything raises, and it is no number."""

    def __radd__(self, other: object) -> float:
        raise ZeroDivisionError


def test_a_value_whose_sum_raises_is_refused_by_name(tmp_path: Path) -> None:
    with recorder(tmp_path / "run.h5") as rec:
        rec.add(a=0.5, b=1.0)
        with pytest.raises(InputError, match=r"'b'.*Odd"):
            rec.add(a=0.5, b=Odd())


@pytest.mark.parametrize("step", [1 << 63, -(1 << 63) - 1, 1.5, True, "1"])
def test_a_step_that_does_not_fit_is_refused(tmp_path: Path, step: Any) -> None:
    with recorder(tmp_path / "run.h5") as rec:
        with pytest.raises(InputError, match=r"64.bit"):
            rec.step(step)
        rec.step((1 << 63) - 1)
        rec.add(a=0.5)
        rec.step()
        calls: list[Callable[[], object]] = [lambda: rec.add(a=0.5), rec.log, rec.reset]
        for call in calls:
            with pytest.raises(InputError, match=r"64.bit"):
                call()
    for at_step in (None, (1 << 63) - 1):
        with Recorder(tmp_path / "run.h5", mode="resume", at_step=at_step) as rec:
            assert rec.current_step == (1 << 63) - 1
            with pytest.raises(InputError, match=r"64.bit"):
                rec.load_state_dict({**rec.state_dict(), "step": 1 << 70})
    with pytest.raises(InputError, match=r"64.bit"):
        Recorder(tmp_path / "run.h5", mode="resume", at_step=1 << 63)
    with Recording(tmp_path / "run.h5") as run:
        assert run["a"].step.tolist() == [(1 << 63) - 1]


def test_a_mark_of_keys_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with recorder(tmp_path / "run.h5") as rec, pytest.raises(InputError, match="Unicode"):
        rec.log(1, keys="\ud800")
