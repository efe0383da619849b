"""Values and events for the tests of the writer, the reader and the law."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from flexrec.recorder.events import Add, Event, Log, Reset

numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
texts = st.text(max_size=8)
DTYPES = ("float32", "float64", "float16", "int64", "uint8", "bool", "complex64")


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Small arrays of any dtype and rank, empty ones too."""
    shape = tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)))
    seed = draw(st.integers(0, 99))
    values = np.random.default_rng(seed).normal(scale=3, size=shape)
    return values.astype(draw(st.sampled_from(DTYPES)))


parts = st.one_of(numbers, texts, arrays())
keys = st.sampled_from(["a", "b", "a/value", "0/x/mean", "é", "", "step", "value_0", "."])


def same(a: Any, b: Any) -> bool:
    """Whether two normalised values are equal, in kind and bits; NaN equals NaN."""
    if isinstance(a, tuple) or isinstance(b, tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return (
            isinstance(a, np.ndarray)
            and isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.tobytes() == b.tobytes()
        )
    return type(a) is type(b) and (a == b or (a != a and b != b))


def same_event(a: Event, b: Event) -> bool:
    """Whether two events are equal."""
    if isinstance(a, Add) and isinstance(b, Add):
        return (a.step, a.time, list(a.values)) == (b.step, b.time, list(b.values)) and all(
            same(a.values[key], b.values[key]) for key in a.values
        )
    if isinstance(a, Log) and isinstance(b, Log):
        return same(a.x, b.x) and (a.keys, a.reset, a.step, a.time, a.axis) == (
            *(b.keys, b.reset, b.step, b.time, b.axis),
        )
    return isinstance(a, Reset) and a == b


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Any event with any values."""
    step, time = draw(st.integers(0, 2**40)), draw(st.floats(0, 2e9))
    key_sets = st.none() | st.lists(keys, max_size=2).map(tuple)
    kind = draw(st.integers(0, 5))
    if kind == 0:
        axis = draw(st.sampled_from([None, "epoch", "Zeit in µs"]))
        return Log(draw(numbers), draw(key_sets), draw(st.booleans()), step, time, axis)
    if kind == 1:
        return Reset(draw(key_sets), step, time)
    # Arrays that several keys have, or one has twice.
    some = parts | st.sampled_from([draw(arrays()), draw(arrays())])
    value = st.one_of(some, st.lists(some, min_size=1, max_size=3).map(tuple))
    return Add(draw(st.dictionaries(keys, value, min_size=1, max_size=4)), step, time)
