"""`flexrec check`: recordings against a golden file; exit codes as in diff(1)."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.cli.output import echo, echo_as_is
from flexrec.cli.progress import reading
from flexrec.cli.replaying import (
    tell_left_out,
    tell_missing,
    tell_state,
    tell_unkept,
    tell_unlogged,
)
from flexrec.recorder.errors import MissingDependency, ServerError, counted, printable
from flexrec.recorder.recording import Recording
from flexrec.replay.definitions.definitions import Definitions
from flexrec.replay.golden.check import Outcome, check
from flexrec.replay.golden.report import report_json, report_text
from flexrec.replay.golden.sources import played_from
from flexrec.replay.golden.visual import messages, show_in_visdom
from flexrec.replay.player.player import fitting
from flexrec.replay.plots.contents import aligned_lines

_PLOTS = 3  # text plots, without --full


def check_recordings(
    paths: Sequence[Path],
    definitions: Definitions,
    *,
    golden: Path,
    every: int | None,
    rtol: float,
    atol: float,
    update: bool,
    max_points: int | None,
    digits: int | None,
    full: bool,
    as_json: bool,
    show: bool,
    server: str,
    port: int,
    base_url: str,
    env: str,
) -> bool:
    """Compare, print the outcome, and draw it if `show`; return whether the golden matches now."""
    with ExitStack() as stack:
        runs = [stack.enter_context(Recording(path)) for path in paths]
        for run in runs:
            tell_state(run)
            tell_missing(run, definitions)
            if every is None:
                tell_unlogged(run, fitting(runs, definitions))
        with reading(runs):
            played = played_from(runs, definitions, every=every)
    tell_left_out(played.left_out)
    outcome = check(
        played.windows,
        golden,
        left_out=played.left_out,
        rtol=rtol,
        atol=atol,
        update=update,
        max_points=max_points,
        digits=digits,
    )
    _print_outcome(outcome, full=full, as_json=as_json)
    tell_unkept(outcome.unkept)
    if show and outcome.comparison is not None and not outcome.comparison:
        # With --json, stdout must hold nothing but the JSON.
        echo_as_is(_shown(outcome, server, port, base_url, env, full), err=as_json)
    return outcome.holds


def _print_outcome(outcome: Outcome, *, full: bool, as_json: bool) -> None:
    found, kept = outcome.comparison, outcome.kept
    if as_json:
        report = {} if found is None else report_json(found, full=full)
        files = {
            "golden": str(outcome.path),
            "obtained": None if kept is None else str(kept),
            "written": outcome.written,
        }
        echo(json.dumps({**files, **report}, indent=1, allow_nan=False))
        return
    if found is not None:
        echo(f"{outcome.path}: {report_text(found, full=full, hint='--full shows all')}")
    if kept is not None:
        echo(f"obtained: {kept} (--update accepts it)")
    if outcome.written:
        echo(f"{outcome.path}: written, {counted(len(outcome.obtained['jsons']), 'window')}")


def _shown(outcome: Outcome, server: str, port: int, base_url: str, env: str, full: bool) -> str:
    """Draw the difference in visdom, or as text if no server answers; return where it is."""
    golden, comparison = outcome.golden, outcome.comparison
    if golden is None or comparison is None:
        return ""
    try:
        drawn = messages(golden, outcome.obtained, comparison)
        url = show_in_visdom(drawn, server=server, port=port, base_url=base_url, env=env)
    except (MissingDependency, ServerError) as error:
        echo(f"flexrec: {error.message}; drawn as text instead", err=True)
        return _as_text(outcome, full)
    return printable(f"{counted(len(drawn), 'window')} in {url}")


def _as_text(outcome: Outcome, full: bool) -> str:
    """Text plots of every trace that differs: golden and obtained together, and the difference."""
    if outcome.golden is None or outcome.comparison is None:
        return ""
    parts = []
    places = dict.fromkeys((d.window, d.trace) for d in outcome.comparison.differences if d.trace)
    for window, trace in places:
        sides = [
            document["jsons"].get(window, {}).get("content", {})
            for document in (outcome.golden, outcome.obtained)
        ]
        lines = aligned_lines(*(side.get("data", []) for side in sides))
        if trace in lines:
            parts.append(_drawn(f"{window}, {trace}", *lines[trace]))
    more = len(parts) - _PLOTS
    if more > 0 and not full:
        parts = [*parts[:_PLOTS], f"\nand {counted(more, 'more plot')} (--full draws all)"]
    return "\n".join(parts) or "none of the differences can be drawn as text"


def _drawn(title: str, x: Sequence[Any], golden: Sequence[Any], obtained: Sequence[Any]) -> str:
    from flexrec.cli.drawing.text_plot import text_plot  # imports uniplot

    old, new = (np.array(side, np.float64) for side in (golden, obtained))
    with np.errstate(over="ignore", invalid="ignore"):
        difference = new - old
    both = text_plot(title, [("golden", x, old), ("obtained", x, new)], marks=".o", height=12)
    below = text_plot("obtained - golden", [("difference", x, difference)], height=6)
    return f"\n{both}\n{below}"
