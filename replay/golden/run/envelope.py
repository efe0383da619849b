"""Golden runs with tolerances that were learnt from several equal runs; docs/golden_runs.md.

The statistic is that of diff/noise/spread.py. The tolerance of a key at a step is the range of the
runs, widened by a multiple of their spread. A run differs if several keys are outside of it at most
of some steps: a single value says nothing where runs are few. One key is enough where it is not
finite, or more than 100 tolerances away at a third of its steps.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import RecordingError, counted
from flexrec.recorder.files.names import is_fingerprint
from flexrec.replay.diff.blame.places import place_of, stage_rank
from flexrec.replay.diff.columns import KeyDiff, Tolerance
from flexrec.replay.diff.compare import conclude
from flexrec.replay.diff.model import First
from flexrec.replay.diff.noise.alike import is_exact
from flexrec.replay.diff.noise.spread import KEPT, WINDOW, least_keys, limit_of, width_of
from flexrec.replay.diff.result import RunDiff
from flexrec.replay.golden.run.compare import compare_key, matched, shown
from flexrec.replay.golden.run.document import spacing, thinned_cells
from flexrec.replay.golden.run.kept import Cell, Cells, KeptRun, Rule

Rows = NDArray[np.float64]

_LINES = 300  # of values, unless there are more than 20 keys
_FEWEST = WINDOW  # values of each key at most, however many keys there are
_DIGITS = 2  # of a tolerance
_LEAST = 1e-300  # smaller tolerances are 0
_FAR, _FAR_SHARE = 100.0, 1 / 3  # so many tolerances off, at this share of its steps: no chance
_FINITE = "finite"


class Learnt(NamedTuple):
    """A golden, and the keys that are not in it, with the reasons."""

    golden: KeptRun
    left_out: dict[str, str]


class _Key(NamedTuple):
    """What several runs recorded of a key: (runs, steps), and their common size (steps,)."""

    steps: list[int]
    values: Rows
    size: Rows


# ---------------------------------------------------------------- learning


def learn(runs: Sequence[KeptRun], name: str, every: int | None = None) -> Learnt:
    """Make a golden of several runs that are legitimately the same.

    Args:
        runs: two or more, with all values; five or more tell small changes.
        name: the name of the golden.
        every: keep the values of every n-th step; by default about 300 values are kept, and up to
            15 of each key where there are more than 20.

    Raises:
        RecordingError: there are fewer than two, or they have no key in common.
    """
    if len(runs) < 2:
        raise RecordingError(
            f"a golden is learnt from two runs or more, got {len(runs)}: with one, nothing is "
            "known of how far equal runs are apart"
        )
    keys, exact, left_out = _sorted_out(runs)
    if not keys and not exact:
        raise RecordingError(
            f"the {len(runs)} runs have no key in common with numbers at the same steps"
        )
    most = max(_FEWEST, _LINES // (len(keys) + len(exact)))
    longest = max((len(key.steps) for key in keys.values()), default=1)
    n = every or spacing(longest, most)
    tolerances = _tolerances(keys, limit_of(len(runs)))
    cells = {
        key: thinned_cells(exact[key], every, most)
        if key in exact
        else _cells(keys[key], tolerances[key], every or spacing(len(keys[key].steps), most))
        for key in runs[0].cells
        if key in keys or key in exact
    }
    of = max(3, WINDOW // n)
    rule = Rule(math.ceil(of * KEPT / WINDOW), of, max(1, least_keys(len(keys))))
    golden = KeptRun(name, cells, runs[0].config, runs[0].facts, every, len(runs), rule)
    return Learnt(golden, left_out)


def _sorted_out(
    runs: Sequence[KeptRun],
) -> tuple[dict[str, _Key], dict[str, Cells], dict[str, str]]:
    """The keys that get tolerances, those that are exact, and those that are left out."""
    keys: dict[str, _Key] = {}
    exact: dict[str, Cells] = {}
    left_out: dict[str, str] = {}
    for key in dict.fromkeys(key for run in runs for key in run.cells):
        columns = [run.cells[key] for run in runs if key in run.cells]
        if len(columns) < len(runs):
            left_out[key] = f"only in {counted(len(columns), 'run')}"
        elif any(list(each) != list(columns[0]) for each in columns):
            left_out[key] = "recorded at other steps"
        elif _is_free_of_noise(key) and all(each == columns[0] for each in columns):
            exact[key] = columns[0]
        elif is_fingerprint(key):
            left_out[key] = "fingerprints that differ"
        else:
            found = _key(key, columns, runs)
            if found is None:
                left_out[key] = "not numbers, or not finite"
            else:
                keys[key] = found
    return keys, exact, left_out


def _is_free_of_noise(key: str) -> bool:
    """Whether no noise gets into a key, so that it has to be equal where it was so in all runs."""
    return is_exact(key) or is_fingerprint(key)


def _key(key: str, columns: Sequence[Cells], runs: Sequence[KeptRun]) -> _Key | None:
    values = np.array([[_number(cell) for cell in each.values()] for each in columns])
    if not np.isfinite(values).all():
        return None
    size = np.abs(values).max(0)
    if key.endswith("/mean"):  # which may be 0 by construction: its size is that of the tensor
        beside = [run.cells.get(f"{key.removesuffix('mean')}std", {}) for run in runs]
        of_std = [[_number(each.get(step)) for step in columns[0]] for each in beside]
        size = np.hypot(size, np.nan_to_num(np.array(of_std)).max(0))
    return _Key(list(columns[0]), values, size)


def _number(cell: Cell | None) -> float:
    number = None if cell is None else cell.number
    return math.nan if number is None else number


def _tolerances(keys: Mapping[str, _Key], limit: float) -> dict[str, Rows]:
    """Half the range of the runs, and so many times their spread; by key."""
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, key in keys.items():
        groups.setdefault((_group(name), tuple(key.steps)), []).append(name)
    found = dict[str, Rows]()
    for names in groups.values():
        low = np.stack([keys[name].values.min(0) for name in names], axis=1)
        high = np.stack([keys[name].values.max(0) for name in names], axis=1)
        width = width_of(low, high, np.stack([keys[name].size for name in names], axis=1))
        of_group = (high - low) / 2 + limit * width
        found |= {name: of_group[:, i] for i, name in enumerate(names)}
    return found


def _group(key: str) -> str:
    """What keys of the same kind share: the source and statistic of a layer."""
    place = place_of(key)
    return f"{place.source}/{key.rpartition('/')[2]}" if place.layer else ""


def _cells(key: _Key, tolerance: Rows, n: int) -> Cells:
    middle = (key.values.max(0) + key.values.min(0)) / 2
    return {
        step: _cell(float(middle[i]), float(tolerance[i]))
        for i, step in enumerate(key.steps)
        if i % n == 0
    }


def _cell(middle: float, tolerance: float) -> Cell:
    """A cell with no more digits than its tolerance has."""
    if tolerance < _LEAST:
        return Cell("", (middle,), 0.0)
    places = _DIGITS - 1 - math.floor(math.log10(tolerance))
    rounded = float(f"{middle:.{max(0, places)}f}") if places >= 0 else middle
    return Cell("", (rounded,), _rounded_up(tolerance + abs(rounded - middle)))


def _rounded_up(tolerance: float) -> float:
    """The smallest number of two digits that is no smaller."""
    unit = math.floor(math.log10(tolerance)) - _DIGITS + 1
    return float(f"{math.ceil(tolerance / 10.0**unit * (1 - 1e-12))}e{unit}")


# ---------------------------------------------------------------- comparing


def compare_learnt(golden: KeptRun, run: KeptRun) -> RunDiff:
    """Compare a run with a golden that was learnt; keys that it does not have are not looked at."""
    rule = golden.rule or Rule()
    both = [key for key in golden.cells if key in run.cells]
    there = {k: {s: run.cells[k][s] for s in golden.cells[k] if s in run.cells[k]} for k in both}
    found: dict[str, KeyDiff] = {}
    outside: dict[str, NDArray[np.bool_]] = {}
    for key in both:
        cells = golden.cells[key]
        if all(cell.within is None for cell in cells.values()):
            found[key] = compare_key(key, cells, there[key], Tolerance())
        else:
            steps = [step for step in cells if step in there[key]]
            found[key] = matched(key, cells, there[key], steps)
            outside[key] = np.array([_is_outside(cells[s], there[key][s]) for s in steps], bool)
    parting = _parting({key: (found[key].match.step, outside[key]) for key in outside}, rule)
    for key in outside:
        alone = _far(golden.cells[key], there[key])
        if alone is not None:
            parting[key] = min(alone, parting.get(key, alone))
    for key, step in parting.items():
        each, cell = found[key], golden.cells[key][step]
        each.first, each.b = step, shown(there[key][step].values[0])
        each.a = f"{cell.number:.9g} +- {cell.within:.2g}"
    for key in outside:
        _take_not_finite(found[key], golden.cells[key], run.cells[key])
    only = [[key for key in golden.cells if key not in run.cells], list[str]()]
    return conclude((golden, run), found, only, first=_first(found, golden.learnt, rule))


def _is_outside(golden: Cell, run: Cell) -> bool:
    a, b = golden.number, run.number
    return a is None or b is None or golden.within is None or not abs(b - a) <= golden.within


def _far(golden: Cells, run: Cells) -> int | None:
    """The first step at which a key is far outside, if it is so too often to be by chance."""
    far = [step for step in golden if step in run and _is_far(golden[step], run[step])]
    return far[0] if far and len(far) >= _FAR_SHARE * len(golden) else None


def _is_far(golden: Cell, run: Cell) -> bool:
    a, b = golden.number, run.number
    return a is not None and b is not None and abs(b - a) > _FAR * (golden.within or math.inf)


def _take_not_finite(found: KeyDiff, golden: Cells, run: Cells) -> None:
    """Let a key differ that is not finite, at any step up to the golden's last: the runs were."""
    last = max(golden)
    lost = (s for s, cell in run.items() if s <= last and not math.isfinite(_number(cell)))
    step = next(lost, None)
    if step is not None and (found.first is None or step <= found.first):
        number = run[step].number
        found.first, found.relative, found.a = step, None, _FINITE
        found.b = shown(run[step].values[0]) if number is None else number


def _parting(
    outside: Mapping[str, tuple[NDArray[np.int64], NDArray[np.bool_]]], rule: Rule
) -> dict[str, int]:
    """The keys that leave their tolerances, by the rule, with the first step of each that does."""
    since = {key: list(_since(steps, found, rule)) for key, (steps, found) in outside.items()}
    ends = sorted({end for windows in since.values() for end, _ in windows})
    for end in ends:
        parting = {
            key: max(first for last, first in windows if last <= end)
            for key, windows in since.items()
            if _is_out_at(outside[key][0], windows, end)
        }
        if len(parting) >= rule.keys:
            return parting
    return {}


def _since(
    steps: NDArray[np.int64], outside: NDArray[np.bool_], rule: Rule
) -> Iterator[tuple[int, int]]:
    """The steps at which a key is outside at most of the last ones, and since when each time."""
    of = min(rule.of, len(steps))
    needed = max(1, math.ceil(of * rule.outside / rule.of))
    for i in range(len(steps)):
        window = slice(max(0, i + 1 - of), i + 1)
        if outside[window].sum() >= needed:
            yield int(steps[i]), int(steps[window][outside[window]][0])


def _is_out_at(steps: NDArray[np.int64], windows: Sequence[tuple[int, int]], end: int) -> bool:
    """Whether the key's last step up to this one is one at which it is outside."""
    before = steps[steps <= end]
    return bool(len(before)) and any(last == before[-1] for last, _ in windows)


def _first(found: Mapping[str, KeyDiff], learnt: int, rule: Rule) -> First | None:
    differ = [
        (each.first, stage_rank(place_of(each.key).stage), i, each)
        for i, each in enumerate(found.values())
        if each.first is not None
    ]
    if not differ:
        return None
    *_, at = min(differ)
    assert at.first is not None  # noqa: S101 - those that differ
    place = place_of(at.key)
    layers = list(dict.fromkeys(place_of(e.key).layer for *_, e in sorted(differ)))
    named = tuple(layer for layer in layers if layer)
    return First(
        step=at.first,
        previous_step=at.previous(at.first),
        stage=place.stage,
        model=None,
        layer=place.layer or None,
        kind=None,
        cause=_cause(at, learnt, rule),
        one_of=named if len(named) > 1 else (),
        key=at.key,
        a=at.a,
        b=at.b,
        relative=at.relative,
    )


def _cause(found: KeyDiff, learnt: int, rule: Rule) -> str:
    if found.a == _FINITE:
        return f"not finite, though {learnt} runs were finite here"
    if isinstance(found.a, str) and "+-" in found.a:
        often = f"in {rule.outside} of {rule.of} kept steps or more, or far outside"
        return f"outside of what {learnt} runs did, {often}"
    return f"it was equal to the bit in {learnt} runs"
