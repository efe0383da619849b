"""The colours of traces: plotly's own, and a ramp for many. sinks/palette.py assigns them."""

CYCLE = (
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (127, 127, 127),
    (188, 189, 34),
    (23, 190, 207),
)
"""plotly's default colours for traces, in order."""

# Dark to light, without the palest end: lines must stand out from white.
_RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (230, 190, 40))


def ramp(part: float) -> list[int]:
    """The colour of the ramp at a position from 0, the first colour, to 1, the last.

    >>> ramp(0.0), ramp(1.0)
    ([68, 1, 84], [230, 190, 40])
    """
    at = part * (len(_RAMP) - 1)
    k = min(int(at), len(_RAMP) - 2)
    low, high = _RAMP[k], _RAMP[k + 1]
    return [round(a + (b - a) * (at - k)) for a, b in zip(low, high, strict=True)]
