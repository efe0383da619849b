"""diff: compare two runs, and find the first difference and its likely cause."""

import os
import re
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flexrec.recorder.errors import DefinitionError, RecordingError, counted, listed, nearest
from flexrec.recorder.files.names import is_fingerprint
from flexrec.recorder.layers.tracing import format as fmt
from flexrec.recorder.recording import Recording
from flexrec.recorder.storage.arrays import Ints
from flexrec.replay.diff.blame.by_statistics import blame
from flexrec.replay.diff.blame.by_trace import blame_traced, lasting_changes, model_of
from flexrec.replay.diff.blame.places import (
    as_run,
    is_of_the_clock,
    is_watched,
    place_of,
    stage_rank,
)
from flexrec.replay.diff.blame.settings import changes, fact_changes
from flexrec.replay.diff.blame.traces import TracedPair, TracedPairs, first_pair
from flexrec.replay.diff.columns import NO_ROWS, KeyDiff, Tolerance, compare_keys, match
from flexrec.replay.diff.model import (
    Blame,
    Change,
    Crossing,
    First,
    Keys,
    Noise,
    Side,
    Spread,
    kind_of,
    order_of,
)
from flexrec.replay.diff.noise.alike import first_unlike, is_exact, is_judged, structure, unlike
from flexrec.replay.diff.noise.judge import judge
from flexrec.replay.diff.noise.spread import KEPT, limit_of
from flexrec.replay.diff.result import RunDiff
from flexrec.replay.diff.run import Run, renamed
from flexrec.replay.diff.stored import StoredPair

_EXACT = Tolerance()
_ONLY_EXPLAIN = frozenset((fmt.ORDER, fmt.ATTRIBUTES))  # of a trace
_TRACED = ("inputs", "outputs", "grad_in", "grad_out")  # sources of which a trace has all
_ROUNDED = "a statistic differs, though what it was taken of is equal to the bit: by rounding"
_GAP = (
    "changed in steps that were not recorded; run both again from the equal step, "
    "recording every step"
)


def diff(
    a: str | os.PathLike[str] | Recording,
    b: str | os.PathLike[str] | Recording,
    *,
    keys: str | Iterable[str] = (),
    rename: Mapping[str, str] | None = None,
    rtol: float = 0.0,
    atol: float = 0.0,
    noise: Iterable[str | os.PathLike[str] | Recording] = (),
) -> RunDiff:
    """Compare two recordings: find where they begin to differ, in which layer, and by how much.

    >>> import flexrec
    >>> print(flexrec.diff("run-0.h5", "run-1.h5"))
    run-0.h5 and run-1.h5 differ
    facts     equal
    config    equal
    first     step 0, loss: train_loss differs, all before it is equal
              train_loss 0.5 -> 0.333333333 (0.33 relative)
    then      train_loss beyond 1e-6 at 0, 1e-3 at 0
    keys      1 of 2 keys differ

    Steps are matched by their numbers, values within a step by their order. Without tolerances
    values are compared bit by bit: a NaN equals one of the same bits, and 0.0 is not -0.0.

    Args:
        a, b: recordings, or their paths. Paths are opened and closed; recordings stay open.
        keys: a name or pattern of keys to compare, or several; by default all.
        rename: patterns of keys or layers of `a`, with their names in `b`, such as
            `{"encoder.*": "backbone.*"}`.
        rtol, atol: the allowed difference of numbers: `|a - b| <= atol + rtol * |a|`. If one is
            given, fingerprints are not compared.
        noise: recordings of runs that equal `a` except for rounding or chance. If any are
            given, `b` is judged by the spread of `a` and these: only what lies beyond it differs,
            and what is equal in all of them but not in `b`, such as batches and rates.

    Raises:
        DefinitionError: a tolerance is negative, or given with `noise`; or `rename` gives one name
            to two keys.
        RecordingError: a recording cannot be read; no key fits a name or pattern of `keys`; there
            is nothing to compare; or there is only one reference, or too little to judge by.
    """
    tolerance, noise = _tolerance(rtol, atol), list(noise)
    patterns = [keys] if isinstance(keys, str) else list(keys)
    if noise and tolerance:
        raise DefinitionError(
            "choose a tolerance or noise: the references' spread is the tolerance"
        )
    with ExitStack() as stack:
        recordings = [
            each if isinstance(each, Recording) else stack.enter_context(Recording(each))
            for each in (a, b, *noise)
        ]
        one, other, *references = runs_of(recordings, rename)
        if references:
            found = compare_by_spread(one, other, references, patterns=patterns)
        else:
            found = compare_runs(one, other, patterns=patterns, tolerance=tolerance)
        if found.equal and not found.keys.compared:
            raise RecordingError(_nothing(found, tolerance))
        return replace(found, notes=(*found.notes, *_unused(recordings[0], rename or ())))


def runs_of(recordings: Sequence[Recording], rename: Mapping[str, str] | None = None) -> list[Run]:
    """The runs to compare, named; all but the second are renamed.

    Args:
        recordings: the two to compare, and the references by whose spread the second is judged.
        rename: as in `diff`.

    Raises:
        DefinitionError: `rename` gives one name to two keys.
        RecordingError: a reference is given twice, or is the second recording.
    """
    a, b, *others = recordings
    rename_all = renamed(list((rename or {}).items()))
    for recording in (a, *others):
        _check_names(recording, rename_all)
    if others:
        _check_references(a, b, others)
    names = names_of([recording.path for recording in recordings])
    return [
        Run(name, [recording], rename=str if i == 1 else rename_all)
        for i, (name, recording) in enumerate(zip(names, recordings, strict=True))
    ]


def compare_runs(
    a: Run,
    b: Run,
    *,
    patterns: Sequence[str] = (),
    tolerance: Tolerance = _EXACT,
    in_common: bool = False,
) -> RunDiff:
    """Compare two runs.

    Args:
        a, b: the runs.
        patterns: names and patterns of keys; empty means all.
        tolerance: the allowed difference of numbers.
        in_common: leave out steps and keys that only one run has.
    """
    wanted, clocks = _chosen(a, b, patterns, tolerance)
    both = [key for key in wanted if key in a and key in b]
    found = _compared(a, b, [key for key in both if key != fmt.VALUES], tolerance)
    traced = None
    if fmt.VALUES in both:
        traces = TracedPairs(a, b)
        traced = first_pair(traces)
        found[fmt.VALUES] = KeyDiff(fmt.VALUES, match(a.steps(fmt.VALUES), b.steps(fmt.VALUES)))
        found[fmt.VALUES].first = traced.a.step if traced is not None else None
        found[fmt.VALUES].is_unlike = traces.are_unlike
    only = [[k for k in wanted if k not in other and k in run] for run, other in ((a, b), (b, a))]
    notes = tuple(_clock_notes(clocks))
    return conclude((a, b), found, only, traced=traced, in_common=in_common, notes=notes)


def conclude(
    sides: tuple[Side, Side],
    found: Mapping[str, KeyDiff],
    only: Sequence[Sequence[str]],
    *,
    traced: TracedPair | None = None,
    first: First | None = None,
    in_common: bool = False,
    notes: tuple[str, ...] = (),
) -> RunDiff:
    """Find the first difference and its cause, given the comparisons of all keys.

    Args:
        sides: the two runs.
        found: the comparisons of the keys that both have, by key.
        only: the keys that only the first has, and those that only the second has.
        traced: the first step whose traces differ.
        first: the first difference, if it is known already.
        in_common: leave out steps and keys that only one run has.
        notes: what else was not compared, in words.
    """
    a, b = sides
    last = _last_steps(found)
    _take_missing(found, last, is_whole=not in_common)
    unmatched = {
        key: (len(each.match.only_a), len(each.match.only_b))
        for key, each in found.items()
        if len(each.match.only_a) or len(each.match.only_b)
    }
    if in_common:
        only, unmatched = [[], []], {}
    differ = sorted(
        (each for each in found.values() if each.first is not None),
        key=lambda each: (each.first, stage_rank(place_of(each.key).stage)),
    )
    config, facts = changes(a.config, b.config), fact_changes(a.facts, b.facts)
    facts += () if traced is None else traced.environment()
    compared = sum(not _is_left_out(each) for each in found.values())
    keys = Keys(compared, tuple(e.key for e in differ), tuple(only[0]), tuple(only[1]), unmatched)
    if first is None and differ:
        first = _first(a, found, config, traced)
    return RunDiff(
        a.name,
        b.name,
        equal=not (differ or only[0] or only[1] or unmatched),
        steps=len(_steps(found.values())),
        last_a=last[0],
        last_b=last[1],
        first=first,
        keys=keys,
        config=config,
        facts=facts,
        spread=tuple(_spread(found)),
        crossed=tuple(_crossings(found)),
        notes=(*_unlike_notes(found.values()), *notes),
    )


def compare_by_spread(
    a: Run, b: Run, references: Sequence[Run], *, patterns: Sequence[str] = ()
) -> RunDiff:
    """Compare two runs, and judge by the spread of references what rounding and chance change.

    Args:
        a, b: the runs; `a` is a reference itself.
        references: the other references.
        patterns: names and patterns of keys; empty means all.

    Raises:
        RecordingError: there is too little to judge by.
    """
    runs = (a, b, *references)
    found, *others = (compare_runs(a, each, patterns=patterns) for each in runs[1:])
    noise = Noise(tuple(run.name for run in (a, *references)), limit_of(1 + len(references)))
    noisy = {key for other in others for key in other.keys.differ}
    have_all = all(other.steps and not other.keys.only_a for other in others)
    if have_all and not noisy:
        return replace(found, noise=replace(noise, exact=True))
    wanted = [key for key in _chosen(a, b, patterns, _EXACT)[0] if all(key in run for run in runs)]
    agreed = [key for key in wanted if is_exact(key) and key not in noisy]
    config = unlike(found.config, [other.config for other in others])
    judged = judge(a, b, references, [key for key in wanted if is_judged(key, runs)])
    exact = _compared_exactly(runs, agreed, config, is_traced=fmt.VALUES in wanted)
    keys = structure(found.keys, [other.keys for other in others])
    is_whole = not (keys.only_a or keys.only_b or keys.unmatched)
    lost = _first_missing(a, b, wanted, keys.unmatched)
    firsts = [each for each in (lost, judged.first) if each is not None]
    first = exact.first or min(firsts, key=_when, default=None)
    if not judged.keys and first is None and is_whole:
        raise RecordingError(
            f"{b.name} cannot be judged: no key of numbers has {KEPT} steps in common with "
            f"{counted(len(noise.references), 'reference')} that are finite in all of these"
        )
    told = judged.keys, agreed, [fmt.VALUES]
    seen = {key: KeyDiff(key, NO_ROWS, judged.beyond.get(key)) for key in judged.keys}
    return replace(
        found,
        equal=first is None and is_whole,
        first=first,
        keys=replace(keys, differ=(*exact.differ, *judged.beyond)),
        config=config,
        facts=unlike(found.facts, [other.facts for other in others]),
        spread=tuple(_spread(seen)),
        crossed=(),
        notes=(*found.notes, *_not_judged(noisy.union(found.keys.differ).difference(*told))),
        noise=replace(
            noise,
            keys=len(judged.keys),
            since=judged.since,
            seen=judged.seen,
            beyond=tuple(judged.beyond),
        ),
    )


class _Exact(NamedTuple):
    """The first difference of what all references agree on, and the keys of it that differ."""

    first: First | None
    differ: tuple[str, ...]


def _compared_exactly(
    runs: Sequence[Run], keys: Sequence[str], config: Sequence[Change], *, is_traced: bool
) -> _Exact:
    a, b, *references = runs
    found = compare_runs(a, b, patterns=keys, in_common=True) if keys else None
    traced = first_unlike(a, b, references) if is_traced else None
    firsts = [_first_traced({}, config, traced)] if traced is not None else []
    firsts += [found.first] if found is not None and found.first is not None else []
    first = min(firsts, key=_when, default=None)
    return _Exact(first, found.keys.differ if found is not None else ())


def _first_missing(a: Run, b: Run, keys: Iterable[str], lost: Container[str]) -> First | None:
    """The first value of a layer that only one run has, as if all that both have were equal."""
    of_layers = [key for key in keys if place_of(key).layer]
    if not any(key in lost for key in of_layers):
        return None
    compared = compare_keys(a, b, of_layers, _EXACT)
    found = {each.key: KeyDiff(each.key, each.match) for each in compared}
    missing = {key: KeyDiff(key, each.match) for key, each in found.items()}
    _take_missing(missing, _last_steps(missing), is_whole=False)
    found |= {key: each for key, each in missing.items() if key in lost}
    step = min((each.first for each in found.values() if each.first is not None), default=None)
    return None if step is None else _first_untraced(a, step, found, ())


def _when(first: First) -> tuple[int, int]:
    return first.step, stage_rank(first.stage)


def names_of(paths: Sequence[Path]) -> list[str]:
    """The names of runs: their files' names, with enough folders to make them unique."""
    if len(set(paths)) < len(paths):
        return [path.name for path in paths]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = [os.path.join(*path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


# ---------------------------------------------------------------- which keys


def _tolerance(rtol: float, atol: float) -> Tolerance:
    if not (rtol >= 0 and atol >= 0):
        raise DefinitionError(f"tolerances are 0 or more, got rtol={rtol!r} and atol={atol!r}")
    return Tolerance(rtol, atol)


def _check_references(a: Recording, b: Recording, others: Sequence[Recording]) -> None:
    paths = [os.path.realpath(run.path) for run in (a, *others)]
    if os.path.realpath(b.path) in paths:
        raise RecordingError(f"{b.path} cannot be judged by itself: it is among the references")
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise RecordingError(
            f"{twice} is given twice as a reference: one run has no spread, so there is no "
            "verdict; the first recording is a reference already, noise names others"
        )


def _check_names(run: Recording, rename: Callable[[str], str]) -> None:
    taken: dict[str, str] = {}
    for key in run:
        other = taken.setdefault(rename(key), key)
        if other != key:
            raise DefinitionError(
                f"{run.path}: {other!r} and {key!r} would both be called {rename(key)!r}; "
                "rename gives each key a name of its own"
            )


def _chosen(
    a: Run, b: Run, patterns: Sequence[str], tolerance: Tolerance
) -> tuple[list[str], list[str]]:
    """The keys to compare, and those that are not compared because they measure time."""
    known = [key for key in dict.fromkeys((*a, *b)) if key not in _ONLY_EXPLAIN]
    known = fitting(patterns, known, f"neither {a.name} nor {b.name} has a key")
    if tolerance:
        known = [key for key in known if not (is_fingerprint(key) or key == fmt.VALUES)]
    clocks = [] if patterns else [key for key in known if is_of_the_clock(key)]
    return [key for key in known if key not in clocks], clocks


def fitting(patterns: Sequence[str], known: Sequence[str], none: str) -> list[str]:
    """The known keys that fit any of the names and patterns; all if there are no patterns.

    Args:
        patterns: the names and patterns.
        known: the keys.
        none: the start of the message if a pattern fits no key, such as "a.h5 has no key".

    Raises:
        RecordingError: a pattern fits no key.
    """
    chosen = set[str]()
    for pattern in patterns:
        found = [key for key in known if key == pattern or fnmatchcase(key, pattern)]
        if not found:
            raise RecordingError(
                f"{none} that fits {pattern!r}; "
                f"there are {listed(known) or 'none at all'}{nearest(pattern, known)}"
            )
        chosen.update(found)
    return [key for key in known if not patterns or key in chosen]


def _is_left_out(found: KeyDiff) -> bool:
    """Whether a key was not compared, as its fingerprints are of different kinds."""
    return found.is_unlike and found.first is None and found.key != fmt.VALUES


def _nothing(found: RunDiff, tolerance: Tolerance) -> str:
    left_out = ("fingerprints are left out with a tolerance",) if tolerance else ()
    why = "; ".join((*found.notes, *left_out)) or "they have no keys"
    return f"{found.a} and {found.b} have nothing to compare: {why}"


def _compared(a: Run, b: Run, keys: Sequence[str], tolerance: Tolerance) -> dict[str, KeyDiff]:
    """Compare the keys; for losses and metrics, also find when they exceed the limits."""
    plain = [k for k in keys if place_of(k).layer and a.is_number(k) and b.is_number(k)]
    pair = StoredPair.of(a, b)
    found = {each.key: each for each in pair.compare(plain, tolerance)} if pair else {}
    left = [key for key in keys if key not in found]
    found |= {each.key: each for each in compare_keys(a, b, left, tolerance)}
    return {key: found[key] for key in keys}


# ---------------------------------------------------------------- which steps


def _steps(found: Iterable[KeyDiff]) -> Ints:
    """The steps for which both runs have values, without duplicates."""
    distinct = {id(each.match): each.match.step for each in found}
    return np.unique(np.concatenate([np.empty(0, np.int64), *distinct.values()]))


def _last_steps(found: Mapping[str, KeyDiff]) -> tuple[int | None, int | None]:
    matches = {id(each.match): each.match for each in found.values()}.values()
    both = [int(found.step.max()) for found in matches if len(found.step)]
    ends = []
    for side in ("only_a", "only_b"):
        rest = [int(getattr(m, side).max()) for m in matches if len(getattr(m, side))]
        ends.append(max((*both, *rest), default=None))
    return ends[0], ends[1]


def _take_missing(
    found: Mapping[str, KeyDiff], last: tuple[int | None, int | None], *, is_whole: bool
) -> None:
    """Count values that only one run has as differences, if both runs recorded the step.

    If one run is watched at every step and the other at every tenth, that is no difference: at
    steps where the runs share no key of the same kind, only the number of values is reported. The
    last step of a run that ends before the other may be incomplete.
    """
    end = min((step for step in last if step is not None), default=None)
    is_uncut = is_whole and last[0] == last[1]
    kinds: dict[str, list[KeyDiff]] = {}
    for each in found.values():
        kinds.setdefault(_recorded_with(each.key), []).append(each)
    for kind in kinds.values():
        if end is not None and any(len(e.match.only_a) or len(e.match.only_b) for e in kind):
            steps = _steps(kind)
            for each in kind:
                each.missing(steps[steps <= end] if is_uncut else steps[steps < end])


def _recorded_with(key: str) -> str:
    """What decides at which steps a key is recorded: the trace, `watch`, or the user's own code."""
    return "trace" if key in fmt.KEYS else "watch" if is_watched(key) else "add"


# ---------------------------------------------------------------- the results


def _first(
    run: Side, found: Mapping[str, KeyDiff], config: Sequence[Change], traced: TracedPair | None
) -> First:
    """The first difference; from the traces, if they differ as early as anything else."""
    untraced = {key: each for key, each in found.items() if key != fmt.VALUES}
    step = min((each.first for each in untraced.values() if each.first is not None), default=None)
    rows = found.get(fmt.VALUES)
    is_unlike = rows is not None and rows.is_unlike  # so events before the first may differ, too
    last = None if step is None else step - 1 if is_unlike else step
    if traced is not None and (last is None or traced.a.step <= last):
        return _first_traced(untraced, config, traced)
    assert step is not None  # noqa: S101 - something differs
    found_by = _first_untraced(run, step, untraced, config)
    is_traced = rows is not None and rows.has(step) and not is_unlike
    if is_traced and place_of(found_by.key).source in _TRACED:
        return replace(found_by, stage="metric", layer=None, kind=None, one_of=(), cause=_ROUNDED)
    if is_traced and found_by.stage == "weights":  # after the optimizer's step, which is equal
        layers = tuple(each for each in found_by.one_of if each in run.layers)
        return replace(found_by, one_of=layers if len(layers) > 1 else ())
    if traced is not None and traced.previous is not None and traced.previous < step:
        later = lasting_changes(traced)
        if later:
            said = f"{found_by.cause}; at step {traced.a.step}, traced next, {later}"
            return replace(found_by, cause=said)
    return found_by


def _first_traced(
    found: Mapping[str, KeyDiff], config: Sequence[Change], traced: TracedPair
) -> First:
    step, previous = traced.a.step, traced.previous
    if previous is None:
        earlier = (each.previous(step) for each in found.values())
        previous = max((each for each in earlier if each is not None), default=None)
    is_late = previous != traced.previous
    blamed, a, b = blame_traced(traced, config, is_late=is_late)
    layer = blamed.layer
    source = blamed.key.partition(" ")[0]
    keys = [k for k in found if k.startswith(f"{layer}/{source}/") and found[k].first == step]
    at = found[keys[0]] if keys else KeyDiff(blamed.key, NO_ROWS, step, a, b)
    if not keys and isinstance(a, float) and isinstance(b, float):
        at.relative = abs(b - a) / abs(a) if a else None
    return First.of(
        blamed,
        step,
        previous,
        at.values,
        key=at.key,
        model=model_of(layer, traced),
        kind=traced.a.attributes.get(layer or "", {}).get("class"),
    )


def _first_untraced(
    run: Side, step: int, found: Mapping[str, KeyDiff], config: Sequence[Change]
) -> First:
    blamed = blame(step, {key: found[key] for key in as_run(found, order_of(run))}, run.layers)
    at = found[blamed.key]
    place = place_of(blamed.key)
    earlier = [each.previous(step) for each in _of_model(run, place.layer, found)] or [
        at.previous(step)
    ]
    previous = max((each for each in earlier if each is not None), default=None)
    is_gap = previous is not None and step - previous > 1
    if is_gap and place.layer:
        blamed = Blame("weights", blamed.key, None, _GAP, ())
    elif blamed.stage == "forward" and previous is None and config:
        cause = f"{config[0].name} differs, first seen in {blamed.layer}: {blamed.cause}"
        blamed = Blame("config", blamed.key, blamed.layer, cause, blamed.one_of)
    return First.of(blamed, step, previous, at.values, kind=kind_of(run, blamed.layer))


def _of_model(run: Side, layer: str, found: Mapping[str, KeyDiff]) -> list[KeyDiff]:
    """The keys of all layers of a layer's model: they are recorded at the same steps."""
    names = {key: place_of(key).layer for key in found} if layer else {}
    model = run.layers.get(layer, {}).get("model")
    return [
        found[key]
        for key, name in names.items()
        if name and run.layers.get(name, {}).get("model") == model
    ]


def _unused(run: Recording, patterns: Iterable[str]) -> Iterable[str]:
    """Patterns of names that fit no key, no layer and no part of a model."""
    layers = {key.partition("/")[0] for key in run}.union(*run.models.values())
    parts = {layer[: dot.start()] for layer in layers for dot in re.finditer(r"\.", layer)}
    known = {*run, *layers, *parts}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            yield f"{pattern!r}, which was to be renamed, fits no key or layer of {run.path.name}"


def _unlike_notes(found: Iterable[KeyDiff]) -> Iterable[str]:
    unlike = [each.key for each in found if each.is_unlike]
    if unlike:
        keys = listed(unlike, most=3)
        yield f"not compared, as one is of the CPU and the other of an accelerator: {keys}"


def _clock_notes(clocks: Sequence[str]) -> Iterable[str]:
    if clocks:
        yield f"not compared unless named, as they measure time: {listed(clocks, most=3)}"


def _not_judged(keys: Collection[str]) -> Iterable[str]:
    if keys:
        yield f"differ, but cannot be judged by a spread: {listed(sorted(keys), most=3)}"


def _spread(found: Mapping[str, KeyDiff]) -> Iterable[Spread]:
    firsts: dict[str, int | None] = {}
    for each in found.values():
        layer = place_of(each.key).layer
        if layer:
            before = firsts.get(layer)
            known = [step for step in (before, each.first) if step is not None]
            firsts[layer] = min(known, default=None)
    steps = sorted(step for step in firsts.values() if step is not None)
    for step in dict.fromkeys(steps):
        yield Spread(step, sum(each <= step for each in steps), len(firsts))


def _crossings(found: Mapping[str, KeyDiff]) -> Iterable[Crossing]:
    for key, each in found.items():
        if place_of(key).stage in ("loss", "metric") and not is_fingerprint(key):
            for limit, step in each.beyond.items():
                yield Crossing(key, limit, step)
