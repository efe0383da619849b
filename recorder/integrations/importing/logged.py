"""What other tools write of a value as JSON: a number, a text, a list, or an object."""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from flexrec.recorder.events import State, Value
from flexrec.recorder.integrations.importing.histograms import histogram_state
from flexrec.recorder.integrations.importing.source import Notes

_TOO_LARGE = 1 << 1024  # for float64, which converting it to says


def json_float(text: str) -> float | int:
    """A float of JSON; too large an integer if it is too large, and not infinity.

    >>> json.loads("[0.5, 1e9]", parse_float=json_float)
    [0.5, 1000000000.0]
    """
    number = float(text)
    return _TOO_LARGE if math.isinf(number) else number


def decimal(text: str) -> float:
    """The number that a text is, as Python writes it.

    Raises:
        ValueError: it is no number, or one too large for a float.
    """
    number = float(text)
    if math.isinf(number) and any(each.isdigit() for each in text):
        raise ValueError("too large a number")
    return number


def logged_values(key: str, value: Any, notes: Notes) -> Iterator[tuple[str, Value]]:
    """The values of a key: of an object, those in it, under keys such as `outer/inner`.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: a histogram makes no sense.
    """
    if value is None:
        return
    if isinstance(value, dict) and "_type" in value:
        state = _histogram(value)
        if state is None:
            notes.left_out[str(value["_type"])] += 1
        else:
            yield key, state
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from logged_values(f"{key}/{name}", inner, notes)
    elif isinstance(value, (bool, int, float, str)):
        yield key, value
    elif (found := value_of_list(value)) is not None:
        yield key, found


def value_of_list(values: list[Any]) -> Value | None:
    """The array of a list of numbers, or of lists of them; else its text. None if it is empty.

    Raises:
        OverflowError: an integer has more digits than Python writes.
    """
    with suppress(ValueError):  # lists of several lengths
        array = np.array(values)
        if array.dtype.kind in "biuf" or all(isinstance(each, int | float) for each in array.flat):
            return array.astype(np.float64) if array.size else None
    try:
        return json.dumps(values)
    except ValueError:
        raise OverflowError("an integer has more digits than Python writes") from None


def _histogram(value: dict[str, Any]) -> State | None:
    """What HistogramMeter would have counted; None if the value is no histogram."""
    counts, packed, edges = value.get("values"), value.get("packedBins"), value.get("bins", [])
    if value["_type"] not in ("histogram", "trackio.histogram") or not counts:
        return None
    if packed:
        edges = packed["min"] + packed["size"] * np.arange(len(counts) + 1)
    return histogram_state(edges[:-1], edges[1:], counts)
