"""The exponential average that TensorBoard draws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrec.recorder.errors import DefinitionError
from flexrec.replay import FlexLogger, define
from flexrec.replay.plots.smoothing import smoothed
from flexrec.replay.sinks.base import ListSink
from flexrec.replay.sinks.visdom import payload

pytestmark = pytest.mark.viewing


def tensorboards(values: list[float], weight: float) -> list[float]:
    """As its slider's formula is: an average that begins at 0, over what it lacks of 1."""
    last, count, found = 0.0, 0, []
    for value in values:
        if not math.isfinite(value):
            found.append(value)
            continue
        last, count = last * weight + (1 - weight) * value, count + 1
        found.append(last / (1 - weight**count))
    return found


@given(
    st.lists(st.floats(-1e3, 1e3) | st.just(math.nan), max_size=50),
    st.floats(0, 0.99),
)
def test_it_is_tensorboards(values: list[float], weight: float) -> None:
    expected = tensorboards(values, weight)
    np.testing.assert_allclose(smoothed(values, weight), expected, rtol=1e-9, atol=1e-9)


def test_a_smoothed_line_has_its_values_pale_behind_it() -> None:
    logger = FlexLogger(
        define(
            {"p": {"type": "line", "opts": {"smooth": 0.5, "legend": ["mine"]}}},
            {"a": {"type": "LastValueMeter", "target": "p"}},
        ),
        sink=ListSink(),
    )
    for x, value in enumerate([0.0, 1.0, 1.0]):
        logger.add(a=value)
        logger.log(x)
    (window,) = logger.windows()
    assert [(t.name, t.pale) for t in window.traces] == [("a", True), ("a", False)]
    raw, smooth = payload(window)["data"]
    assert (raw["name"], smooth["name"]) == ("mine", "mine")
    assert raw["y"] == [0, 1, 1]
    assert smooth["y"] == smoothed([0, 1, 1], 0.5).tolist()
    assert (raw["showlegend"], raw["opacity"] < 0.5) == (False, True)
    assert "opacity" not in smooth or smooth["opacity"] == 1


@pytest.mark.parametrize("weight", [1, -0.1, "0.9", True])
def test_other_weights_are_refused(weight: object) -> None:
    with pytest.raises(DefinitionError, match="smooth must be a number from 0 to less than 1"):
        define({"p": {"type": "line", "opts": {"smooth": weight}}}, {})
