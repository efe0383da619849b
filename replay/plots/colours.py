"""The colours of traces: ten that the colour-blind can tell apart, and a ramp for many.

sinks/palette.py assigns them.
"""

from collections.abc import Sequence

CYCLE = (
    (60, 107, 232),
    (218, 92, 17),
    (21, 184, 132),
    (143, 6, 106),
    (153, 168, 224),
    (116, 72, 18),
    (171, 176, 92),
    (95, 29, 167),
    (215, 167, 194),
    (86, 108, 96),
)
"""The colours of traces, in order.

They were searched for so that any two, and first of all the first ones, are far apart in CIELAB for
normal sight, protanopia, deuteranopia and tritanopia, on white and as the page lightens them on
dark ground. tests/replay/plots/test_colours.py measures it.
"""

GREY = (127, 127, 127)


def written(colour: tuple[int, ...]) -> str:
    """The colour as HTML writes it.

    >>> written((255, 0, 16))
    '#ff0010'
    """
    return "#{:02x}{:02x}{:02x}".format(*colour)


_PALEST = 0.6  # how much white is in the palest of several colours of a run
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


def paler(colour: Sequence[int], part: float) -> list[int]:
    """A colour of several of one run: itself for 0, the palest for 1.

    >>> paler([0, 100, 255], 0), paler([0, 100, 255], 1)
    ([0, 100, 255], [153, 193, 255])
    """
    return [round(each + (255 - each) * _PALEST * part) for each in colour]
