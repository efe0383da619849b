"""Compare two snapshots: documents in, differences out.

Pure. tolerance.py compares numbers, trace.py compares traces, report.py describes the differences.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flexrec.recorder.errors import DefinitionError, GoldenError, counted, listed
from flexrec.replay.golden.model import ABSENT, RTOL, Comparison, Difference
from flexrec.replay.golden.snapshot import SETTINGS, settings
from flexrec.replay.golden.trace import Tolerance, compare_leaves, compare_trace
from flexrec.replay.plots.contents import named
from flexrec.replay.plots.pictures import decoded

_SWAPS = 8  # most differing traces that are searched for two that were exchanged


def compare(
    golden: Mapping[str, Any], obtained: Mapping[str, Any], *, rtol: float = RTOL, atol: float = 0.0
) -> Comparison:
    """Compare two documents of `snapshot`, or of visdom's environment files.

        >>> from flexrec.replay import Trace, Window, snapshot
        >>> loss = Window("loss", None, "line", (Trace("train", y=[0.5, 0.25], x=[0, 1]),))
        >>> bent = Window("loss", None, "line", (Trace("train", y=[0.5, 0.75], x=[0, 1]),))
        >>> found = compare(snapshot([loss]), snapshot([bent]))
        >>> found.equal, found.differences[0].index, found.differences[0].max_abs
        (False, (1,), 0.5)

    Pure: nothing is read, written or changed. Structure is compared exactly: windows and traces
    with their names and order, types, titles, layouts, opts, and whether a number is an integer or
    a float. Numbers may differ by `atol + rtol * |golden|`; a gap (NaN) equals only a gap. Pictures
    are compared by their pixels. Fields that visdom generates (`contentID`, `i`, `version`,
    `comment`, `reload`) are ignored. If a document was rounded to some digits, differences below
    its last digit are ignored.

    Args:
        golden: the expected document.
        obtained: the document to check.
        rtol: tolerance relative to the golden value; not negative.
        atol: absolute tolerance; not negative.

    Returns:
        The comparison, which is true if nothing differs.

    Raises:
        DefinitionError: a tolerance is negative or not finite.
    """
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
            raise DefinitionError(f"{name} must be a number, 0 or more, got {value!r}")
    digits = settings(golden)[1]
    if digits is not None:  # a last bit may change the last digit; 1 % for rounding
        rtol = max(rtol, 1.01 * 10.0 ** (1 - digits))
    tolerance = Tolerance(float(rtol), float(atol))
    a, b = golden["jsons"], obtained["jsons"]
    found = _settings(golden, obtained)
    order = _in_order(a), _in_order(b)
    pairs = [(name, name) for name in order[0] if name in b]
    missing = [name for name in order[0] if name not in b]
    extra = [name for name in order[1] if name not in a]
    for old, new in _renamed(
        missing, extra, lambda i, k: not compare_window("", a[i], b[k], tolerance, renamed=True)
    ):
        pairs.append((old, new))
        message = f"the window is called {new!r} now; all else is the same"
        found.append(Difference("renamed", old, None, "id", message, old, new))
        missing.remove(old)
        extra.remove(new)
    for name in missing:
        message = f"the window is missing{_title(a[name])}"
        found.append(Difference("missing", name, None, "", message, _summary(a[name]), ABSENT))
    for name in extra:
        message = f"the window is not in the golden{_title(b[name])}"
        found.append(Difference("extra", name, None, "", message, ABSENT, _summary(b[name])))
    found += _order("", None, [n for n in order[0] if n in b], [n for n in order[1] if n in a])
    for old, new in pairs:
        found += compare_window(old, a[old], b[new], tolerance, renamed=old != new)
    places = {name: i for i, name in enumerate(dict.fromkeys(("", *order[0], *order[1])))}
    kept = sorted(found, key=lambda difference: places[difference.window])
    traces = sum(len(_traces(window)) for window in a.values())
    points = sum(_points(trace) for window in a.values() for trace in _traces(window))
    return Comparison(tuple(kept), tolerance.rtol, tolerance.atol, len(a), traces, points)


def compare_window(
    name: str,
    golden: Mapping[str, Any],
    obtained: Mapping[str, Any],
    tolerance: Tolerance,
    *,
    renamed: bool = False,
) -> list[Difference]:
    """Compare two of visdom's windows; a renamed window may have another title."""
    if golden.get("type") != obtained.get("type"):
        kinds = golden.get("type"), obtained.get("type")
        message = f"the window is of type {kinds[1]!r}, the golden's of {kinds[0]!r}"
        return [Difference("type", name, None, "type", message, *kinds)]
    found = []
    titles = golden.get("title"), obtained.get("title")
    if titles[0] != titles[1] and not renamed:
        found += compare_leaves(name, None, "title", *titles, tolerance)
    for field in ("width", "height", "inflate"):
        leaf = golden.get(field, ABSENT), obtained.get(field, ABSENT)
        found += compare_leaves(name, None, field, *leaf, tolerance)
    contents = golden["content"], obtained["content"]
    if golden.get("type") == "image":
        return found + _picture(name, *contents, tolerance)
    if not all(isinstance(content, dict) and "data" in content for content in contents):
        return found + _text(name, *contents)
    layouts = [dict(content.get("layout", {})) for content in contents]
    shown = tuple(layout.get("title", ABSENT) for layout in layouts)
    if shown == titles or renamed:  # already reported
        for layout in layouts:
            layout.pop("title", None)
    found += compare_leaves(name, None, "layout", layouts[0], layouts[1], tolerance)
    return found + _all_traces(name, contents[0]["data"], contents[1]["data"], tolerance)


def _settings(golden: Mapping[str, Any], obtained: Mapping[str, Any]) -> list[Difference]:
    a, b = dict(golden.get(SETTINGS, {})), dict(obtained.get(SETTINGS, {}))
    envs = a.pop("envs", {}), b.pop("envs", {})
    found = []
    for name in sorted({*envs[0], *envs[1]}):
        if name in golden["jsons"] and name in obtained["jsons"]:
            old, new = envs[0].get(name, ABSENT), envs[1].get(name, ABSENT)
            found += compare_leaves(name, None, "env", old, new, Tolerance(0.0, 0.0))
    for name in sorted({*a, *b}):
        old, new = a.get(name, ABSENT), b.get(name, ABSENT)
        found += compare_leaves("", None, name, old, new, Tolerance(0.0, 0.0))
    return found


def _in_order(windows: Mapping[str, Any]) -> list[str]:
    """The window ids in visdom's order."""
    names = list(windows)
    return sorted(names, key=lambda name: (windows[name].get("i", 0), names.index(name)))


def _renamed(
    missing: Sequence[str], extra: Sequence[str], same: Callable[[str, str], bool]
) -> list[tuple[str, str]]:
    """Pairs that differ only in name; names with several candidates are left out."""
    pairs = []
    for old in missing:
        heirs = [new for new in extra if same(old, new)]
        if len(heirs) == 1:
            pairs.append((old, heirs[0]))
    heirs = [new for _, new in pairs]
    return [(old, new) for old, new in pairs if heirs.count(new) == 1]


def _order(
    window: str, trace: str | None, golden: Sequence[str], obtained: Sequence[str]
) -> list[Difference]:
    if list(golden) == list(obtained):
        return []
    what = "traces" if window else "windows"
    message = f"the {what} are in another order: {listed(obtained)}; golden {listed(golden)}"
    return [Difference("reordered", window, trace, "order", message, list(golden), list(obtained))]


def _all_traces(
    window: str,
    golden: Sequence[Mapping[str, Any]],
    obtained: Sequence[Mapping[str, Any]],
    tolerance: Tolerance,
) -> list[Difference]:
    a, b = named(golden), named(obtained)

    def same(old: str, new: str) -> bool:
        return not compare_trace(window, old, _bare(a[old]), _bare(b[new]), tolerance)

    missing = [name for name in a if name not in b]
    extra = [name for name in b if name not in a]
    found = []
    for old, new in _renamed(missing, extra, same):
        message = f"the trace is called {new!r} now; its data are the same"
        found.append(Difference("renamed", window, old, "name", message, old, new))
        missing.remove(old)
        extra.remove(new)
    for name in missing:
        message = "the trace is missing"
        found.append(Difference("missing", window, name, "", message, _points(a[name]), ABSENT))
    for name in extra:
        message = "the trace is not in the golden"
        found.append(Difference("extra", window, name, "", message, ABSENT, _points(b[name])))
    common = [name for name in a if name in b]
    found += _order(window, None, common, [name for name in b if name in a])
    differing = {
        name: different
        for name in common
        if (
            different := compare_trace(
                window, name, _unnamed(a[name]), _unnamed(b[name]), tolerance
            )
        )
    }
    for first, second in _swapped(list(differing), same):
        del differing[first], differing[second]
        message = f"the data of {first!r} and {second!r} have changed places"
        swap = Difference("reordered", window, first, "data", message, first, second)
        differing[first] = [swap]
    return found + [difference for name in common for difference in differing.get(name, [])]


def _swapped(names: Sequence[str], same: Callable[[str, str], bool]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for i, first in enumerate(names if len(names) <= _SWAPS else ()):
        for second in names[i + 1 :]:
            if not {first, second} & {name for pair in pairs for name in pair} and (
                same(first, second) and same(second, first)
            ):
                pairs.append((first, second))
    return pairs


def _bare(trace: Mapping[str, Any]) -> dict[str, Any]:
    """A trace without its name, and without the colour and the dash that follow from the name."""
    return {key: value for key, value in trace.items() if key not in ("name", "line", "marker")}


def _unnamed(trace: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in trace.items() if key != "name"}


def _picture(
    window: str, golden: Mapping[str, Any], obtained: Mapping[str, Any], tolerance: Tolerance
) -> list[Difference]:
    captions = golden.get("caption") or "", obtained.get("caption") or ""
    found = compare_leaves(window, None, "caption", *captions, tolerance)
    if golden.get("src") == obtained.get("src"):
        return found
    try:
        pixels = [decoded(content["src"]) for content in (golden, obtained)]
    except ValueError as error:
        raise GoldenError(f"window {window!r}: {error}") from error
    different = compare_leaves(
        window, None, "pixels", pixels[0].tolist(), pixels[1].tolist(), tolerance
    )
    return found + [replace(difference, kind="values") for difference in different]


def _text(window: str, golden: Any, obtained: Any) -> list[Difference]:
    if golden == obtained:
        return []
    old, new = str(golden), str(obtained)
    at = next((i for i, (c, d) in enumerate(zip(old, new, strict=False)) if c != d), None)
    at = min(len(old), len(new)) if at is None else at
    parts = [f"…{text[max(0, at - 10) : at + 30]!r}…" for text in (old, new)]
    message = f"the text differs from character {at} on: {parts[1]}, golden {parts[0]}"
    return [Difference("values", window, None, "text", message, old, new, index=(at,))]


def _traces(window: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    content = window["content"]
    traces = content.get("data", ()) if isinstance(content, dict) else ()
    return traces if isinstance(traces, list) else ()


def _points(trace: Mapping[str, Any]) -> int:
    for key in ("y", "z", "values"):
        values = trace.get(key)
        if isinstance(values, list):
            return sum(map(len, values)) if values and isinstance(values[0], list) else len(values)
    return 0


def _title(window: Mapping[str, Any]) -> str:
    title, traces = window.get("title"), _traces(window)
    return f" ({title!r}, {counted(len(traces), 'trace')})" if traces else f" ({title!r})"


def _summary(window: Mapping[str, Any]) -> dict[str, Any]:
    return {"title": window.get("title"), "traces": list(named(_traces(window)))}
