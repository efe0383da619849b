"""Plot the difference of a golden window and an obtained one.

Contents are as in visdom's environment files, arguments and results alike; None: nothing to draw.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flexrec.replay.plots.colours import CYCLE
from flexrec.replay.plots.contents import aligned_lines, named, numbers
from flexrec.replay.plots.pictures import decoded
from flexrec.replay.plots.plot_type import Message


def overlaid(golden: Mapping[str, Any], obtained: Mapping[str, Any], names: set[str]) -> Message:
    """Plot golden (dotted), obtained (solid) and obtained − golden (below), a colour per trace."""
    sides = named(golden["data"]), named(obtained["data"])
    order = [name for name in dict.fromkeys((*sides[0], *sides[1])) if name in names]
    colours = {name: f"rgb{CYCLE[k % len(CYCLE)]}" for k, name in enumerate(order)}
    data: list[Message] = []
    for part, side in (("golden", sides[0]), ("obtained", sides[1])):
        for name in order:
            if name in side:
                line = {"dash": "dot" if part == "golden" else "solid", "color": colours[name]}
                look = {"line": line, "marker": {"color": colours[name]}, "yaxis": "y"}
                opacity = 0.5 if part == "golden" else 1.0
                data.append({**side[name], **look, "name": f"{part} {name}", "opacity": opacity})
    for name, (x, old, new) in aligned_lines(golden["data"], obtained["data"]).items():
        if name in names:
            pairs = zip(old, new, strict=True)
            residual = [None if p is None or q is None else q - p for p, q in pairs]
            look = {"mode": "lines+markers", "marker": {"color": colours[name]}}
            head = {"type": "scatter", "name": f"difference {name}", "yaxis": "y2"}
            data.append({**head, **look, "line": {"color": colours[name]}, "x": x, "y": residual})
    layout = {key: value for key, value in golden.get("layout", {}).items() if key != "yaxis2"}
    above, below = layout.get("yaxis", {}), {"domain": [0, 0.26], "title": "difference"}
    return {
        "data": data,
        "layout": {
            **layout,
            "showlegend": True,
            "xaxis": {**layout.get("xaxis", {}), "anchor": "y2"},
            "yaxis": {**above, "domain": [0.36, 1]},
            "yaxis2": below,
        },
    }


def subtracted(
    golden: Mapping[str, Any], obtained: Mapping[str, Any], _names: set[str]
) -> Message | None:
    """Plot obtained − golden of a matrix as a heatmap."""
    if not obtained["data"]:
        return None
    old, new = (numbers(content["data"][0].get("z")) for content in (golden, obtained))
    if old is None or new is None or old.shape != new.shape:
        return None
    layout = {
        axis: golden["layout"][axis] for axis in ("xaxis", "yaxis") if axis in golden["layout"]
    }
    return _matrix((new.array - old.array).reshape(old.shape), layout)


def pictures(
    golden: Mapping[str, Any], obtained: Mapping[str, Any], _names: set[str]
) -> Message | None:
    """Plot the greatest difference among each pixel's channels as a heatmap."""
    old, new = (decoded(content["src"]).astype(int) for content in (golden, obtained))
    upright = {"yaxis": {"autorange": "reversed"}}
    return _matrix(np.abs(new - old).max(axis=2), upright) if old.shape == new.shape else None


def _matrix(values: Any, layout: Message) -> Message:
    cells = [[v if np.isfinite(v) else None for v in row] for row in values.tolist()]
    trace = {"z": cells, "type": "heatmap", "colorscale": "RdBu", "zmid": 0}
    return {"data": [trace], "layout": layout}
