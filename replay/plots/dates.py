"""Convert dates on axes: flexrec's are seconds since 1970, plotly's are milliseconds."""

from collections.abc import Mapping
from typing import Any

_PLACES = ("range", "tickvals", "dtick", "tick0")


def in_milliseconds(message: dict[str, Any]) -> None:
    """Convert a payload's date axes, and the values along them, from seconds to milliseconds.

    >>> message = {"data": [{"x": [1.5, None]}], "layout": {"xaxis": {"type": "date"}}}
    >>> in_milliseconds(message)
    >>> message["data"]
    [{'x': [1500.0, None]}]
    """
    for axis in "xy":
        layout = message.get("layout", {}).get(f"{axis}axis")
        if isinstance(layout, Mapping) and layout.get("type") == "date":
            shown = {name: _scaled(item) for name, item in layout.items() if name in _PLACES}
            message["layout"][f"{axis}axis"] = {**layout, **shown}
            for trace in message["data"]:
                if axis in trace:
                    trace[axis] = _scaled(trace[axis])


def _scaled(value: Any) -> Any:
    if isinstance(value, list):
        return [_scaled(item) for item in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value * 1000 if is_number else value
