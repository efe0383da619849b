"""Compare a run with a golden of one, to the bit or within a tolerance.

envelope.py compares with a golden that has learnt tolerances.
"""

from collections.abc import Iterable

import numpy as np

from flexrec.recorder.files.names import is_fingerprint
from flexrec.recorder.storage.arrays import Ints
from flexrec.replay.diff.columns import LIMITS, KeyDiff, Tolerance, match, relative
from flexrec.replay.diff.compare import conclude
from flexrec.replay.diff.model import Shown
from flexrec.replay.diff.result import RunDiff
from flexrec.replay.golden.run.kept import Cell, Cells, KeptRun, Plain, are_unlike

_NOT_KEPT = "not kept"
_ONLY_CODES = (
    "a golden keeps the numbers of some steps of each key, and of the others a code of their bits; "
    "every=1 keeps all"
)


def compare(golden: KeptRun, run: KeptRun, tolerance: Tolerance) -> RunDiff:
    """Compare a run with a golden.

    Args:
        golden: the golden; not one that was learnt.
        run: the run, with all values.
        tolerance: the allowed difference of numbers, from the golden's; 0: equal bits. Where there
            is one, only steps whose values the golden keeps are compared, and no fingerprints.
    """
    a, b = (_wanted(each, tolerance) for each in (golden, run))
    found = {key: compare_key(key, a[key], b[key], tolerance) for key in a if key in b}
    is_thin = any(each.first is not None and each.a == _NOT_KEPT for each in found.values())
    return conclude((golden, run), found, _only(a, b), notes=(_ONLY_CODES,) if is_thin else ())


def _wanted(run: KeptRun, tolerance: Tolerance) -> dict[str, Cells]:
    """The keys to compare: no fingerprints where there is a tolerance, as in diff."""
    return {
        key: cells for key, cells in run.cells.items() if not tolerance or not is_fingerprint(key)
    }


def _only(a: Iterable[str], b: Iterable[str]) -> list[list[str]]:
    in_a, in_b = list(a), list(b)
    return [[k for k in in_a if k not in set(in_b)], [k for k in in_b if k not in set(in_a)]]


def compare_key(key: str, a: Cells, b: Cells, tolerance: Tolerance) -> KeyDiff:
    """Compare the cells of a key, step by step.

    Fingerprints of the CPU and of an accelerator are not compared. Where the golden keeps a code
    alone, it does not say which it is, so the steps whose values it keeps decide for the key.
    """
    both = [step for step in a if step in b and (not tolerance or a[step].values)]
    found = matched(key, a, b, both)
    if is_fingerprint(key):
        unlike = {step for step in both if are_unlike(a[step], b[step])}
        found.is_unlike = bool(unlike)
        both = [s for s in both if s not in unlike and (a[s].values or not unlike)]
    for step in both:
        one, other = a[step], b[step]
        if one.code == other.code:
            continue
        pair = _apart(one, other, tolerance)
        if pair is None:
            continue
        apart = _relative(*pair)
        if found.first is None:
            found.first, (found.a, found.b), found.relative = step, pair, apart
        for limit in LIMITS:
            if apart is not None and apart > limit:
                found.beyond.setdefault(limit, step)
    return found


def matched(key: str, a: Cells, b: Cells, compared: list[int]) -> KeyDiff:
    """A comparison without differences, at these steps; it tells steps that only one has."""
    of_all = match(_ints(a), _ints(b))
    return KeyDiff(key, of_all._replace(step=_ints(compared), a=None, b=None))


def _ints(steps: Iterable[int]) -> Ints:
    return np.fromiter(steps, np.int64)


def _apart(a: Cell, b: Cell, tolerance: Tolerance) -> tuple[Shown, Shown] | None:
    """Two cells as they are shown if they differ; None if they are equal within the tolerance."""
    if not a.values:
        return _NOT_KEPT, shown(b.values[0])
    if len(a.values) != len(b.values):
        return f"{len(a.values)} values", f"{len(b.values)} values"
    for one, other in zip(a.values, b.values, strict=True):
        if not _is_near(one, other, tolerance):
            return shown(one), shown(other)
    return None


def _is_near(a: Plain, b: Plain, tolerance: Tolerance) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (a != a and b != b) or not tolerance.beyond(np.array([a]), np.array([b]))[0]
    if not isinstance(a, dict) or not isinstance(b, dict) or a.keys() != b.keys():
        return False
    if "parts" in a:
        parts = a["parts"], b["parts"]
        return len(parts[0]) == len(parts[1]) and all(
            _is_near(one, other, tolerance) for one, other in zip(*parts, strict=True)
        )
    if not tolerance:
        return all(a[name] == b[name] for name in a if name != "rms")
    near = "rms" not in a or _is_near(float(a["rms"]), float(b["rms"]), tolerance)
    return near and all(a[name] == b[name] for name in a if name not in ("rms", "bits"))


def shown(value: Plain) -> Shown:
    """A value as a difference shows it."""
    if isinstance(value, float):
        return value
    if "text" in value:
        return str(value["text"])
    if "parts" in value:
        return f"({', '.join(str(shown(part)) for part in value['parts'])})"
    rms = f", rms {value['rms']:.9g}" if "rms" in value else ""
    dtype, shape = next(iter(value.items()))
    return f"{dtype} array of shape {tuple(shape)}{rms}, bits {value['bits']}"


def _relative(a: Shown, b: Shown) -> float | None:
    if not isinstance(a, float) or not isinstance(b, float):
        return None
    apart = float(relative(np.array([a]), np.array([b]))[0])
    return apart if np.isfinite(apart) else None
