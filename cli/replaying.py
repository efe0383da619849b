"""`flexrec replay`: play recordings through definitions, and send the windows to a sink."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple

from flexrec.cli.options import column_names
from flexrec.cli.output import echo, echo_json
from flexrec.cli.progress import counting, reading
from flexrec.recorder.errors import OutputError, QueryError, counted, listed, one_line
from flexrec.recorder.files.atomic_write import writing
from flexrec.recorder.layers.tracing import format as trace
from flexrec.recorder.recording import Recording
from flexrec.replay.definitions.definitions import Definitions
from flexrec.replay.definitions.presets import how_to_record, preset_of
from flexrec.replay.definitions.toml import definitions_from
from flexrec.replay.player.player import (
    count_unlogged,
    fitting,
    missing_keys,
    play_all,
    run_names,
    undrawn_keys,
)
from flexrec.replay.plots.window import Window
from flexrec.replay.sinks.base import NOT_SHOWN, Sink, page_of
from flexrec.replay.sinks.env_file import EnvFileSink

if TYPE_CHECKING:
    from flexrec.replay.runs.collection import Runs
    from flexrec.replay.runs.comparing.playing import PlayedRuns
    from flexrec.replay.runs.workers.choose import Wanted
    from flexrec.replay.sinks.html import HtmlSink
    from flexrec.replay.sinks.visdom import VisdomSink

_DEFINES = "--config draws what you define"
_OTHERS = "--phases names other phases, such as train,dev; --preset auto draws every metric"
_DESCRIBED = 50  # runs of a folder that a page tells of


class Outlet(NamedTuple):
    """Where windows go: the sink, its name for the user, and the sink again if it is a server, or a
    page, which also says what the recordings say of their runs."""

    sink: Sink
    place: str
    server: "VisdomSink | None" = None
    page: "HtmlSink | None" = None


def into_file(path: Path, *, env: str, max_points: int, overwrite: bool) -> Outlet:
    """The outlet for a visdom environment file; OutputError if it cannot be written there."""
    _try_to_write(path)
    with writing(path):
        sink = EnvFileSink(path, env=env, max_points=max_points, overwrite=overwrite)
    return Outlet(sink, str(path))


def into_page(path: Path, *, env: str, max_points: int, overwrite: bool) -> Outlet:
    """The outlet for an HTML file; OutputError if it cannot be written, or has another ending."""
    if path.suffix.lower() not in ("", ".html", ".htm"):
        raise OutputError(f"{path}: --html writes a page, NAME.html, not {path.suffix}")
    _try_to_write(path)
    from flexrec.replay.sinks.html import HtmlSink  # imports plotly

    with writing(path):
        sink = HtmlSink(path, title=env, max_points=max_points, overwrite=overwrite)
    return Outlet(sink, str(path), page=sink)


def into_server(server: str, port: int, *, base_url: str, env: str, max_points: int) -> Outlet:
    """The outlet for an environment of a visdom server."""
    from flexrec.replay.sinks.visdom import VisdomSink  # imports visdom

    sink = VisdomSink(server=server, port=port, env=env, base_url=base_url, max_points=max_points)
    return Outlet(sink, page_of(sink.url, env), sink)


def replay_recordings(
    paths: Sequence[Path],
    definitions: Definitions,
    outlet: Outlet,
    *,
    every: int | None,
    strict: bool = False,
    follow: bool = False,
    as_json: bool = False,
) -> bool:
    """Play the recordings and list the windows; return whether every value could be drawn."""
    if follow:
        from flexrec.replay.player.follow import follow_recordings

        for path in paths:  # fail early if a path is no recording
            Recording(path).close()
        played = follow_recordings(
            paths, definitions, outlet.server, every=every, tell=_print_note, strict=strict
        )
    with ExitStack() as stack:
        runs = [stack.enter_context(Recording(path)) for path in paths]
        for run in runs:
            tell_state(run)
        with reading(runs):
            chosen = fitting(runs, definitions)
            if not follow:
                played = play_all(runs, chosen, every=every, strict=strict)
        for run in runs:
            tell_missing(run, definitions)
            tell_undrawn(run, chosen, all_keys=definitions.auto is not None)
            if every is None:
                tell_unlogged(run, chosen)
        if outlet.page is not None:
            names = run_names([run.path for run in runs])
            named = dict(zip(names, runs, strict=True))
            outlet.page.describe(named, every=every, x=definitions.x)
    tell_left_out(played.left_out)
    if not follow or outlet.server is None:
        outlet.sink.show(played.windows)
    _close(outlet, played.windows, played.left_out, as_json=as_json)
    return not played.left_out


class Choice(NamedTuple):
    """Which of many runs are drawn, and how; the options of the same names."""

    where: str | None = None
    group: str | None = None
    band: str = "std"
    best: str | None = None
    top: int = 5
    color: str | None = None

    @property
    def is_given(self) -> bool:
        """Whether any of them was given."""
        return any(each is not None for each in (self.where, self.group, self.best, self.color))


def replay_runs(
    places: Sequence[Path],
    choice: Choice,
    definitions: Definitions,
    outlet: Outlet,
    *,
    every: int | None,
    strict: bool = False,
    as_json: bool = False,
    workers: "Wanted" = None,
) -> bool:
    """Play the runs that are chosen, and list the windows; return whether all could be drawn."""
    from flexrec.replay.runs.comparing.playing import Settings

    runs = chosen_runs(places, choice.where, workers=workers)
    if choice.group is not None:
        runs = runs.group(*column_names(choice.group))
    _print_note(f"{counted(len(runs), 'run')} of {listed(map(str, places), most=4)}")
    settings = Settings(
        definitions, every=every, strict=strict, is_coloured=choice.color is not None
    )
    with counting() as tell:
        played = runs.play_all(
            settings,
            band=choice.band,
            best=choice.best,
            top=choice.top,
            color=choice.color,
            tell=tell,
        )
    for note in played.notes:
        _print_note(note)
    tell_left_out(played.left_out)
    if outlet.page is not None:
        _describe_on(outlet.page, runs, played, every=every, x=definitions.x)
    outlet.sink.show(played.windows)
    _close(outlet, played.windows, played.left_out, as_json=as_json)
    return played.is_whole and not played.left_out


def chosen_runs(places: Sequence[Path], where: str | None, workers: "Wanted" = None) -> "Runs":
    """The runs in folders, patterns and files for which an expression holds.

    Raises:
        QueryError: it holds for none of them.
    """
    from flexrec.replay.runs.collection import Runs

    with counting() as tell:
        every_run = Runs(*places, tell=tell, workers=workers)
    runs = every_run if where is None else every_run.where(where)
    if not len(runs):
        raise _none_chosen(every_run)
    return runs


def _none_chosen(runs: "Runs") -> QueryError:
    """The error for a choice of none of these runs."""
    none = f"the expression fits none of {counted(len(runs), 'run')}"
    return QueryError(f"no run was chosen: {none if len(runs) else '; '.join(runs.notes())}")


def _describe_on(
    page: "HtmlSink", runs: "Runs", played: "PlayedRuns", *, every: int | None, x: str
) -> None:
    """Let a page tell of the runs or groups that it draws, unless they are too many."""
    drawn = {trace.run for window in played.windows for trace in window.traces}
    groups = runs.groups
    every_run = groups or {name: [path] for name, path in zip(runs.names, runs.paths, strict=True)}
    is_one = len(every_run) == 1  # then legends do not name it
    named = {name: paths for name, paths in every_run.items() if is_one or name in drawn}
    with ExitStack() as stack:
        is_few = sum(map(len, named.values())) <= _DESCRIBED
        found: dict[str, Recording | Sequence[Recording]] = {}
        for name, paths in named.items() if is_few else ():
            readable = [path for path in paths if path not in played.unread]
            each = [stack.enter_context(Recording(path)) for path in readable]
            found[name] = each if groups else each[0]
        page.describe(found, every=every, x=x)


def _close(
    outlet: Outlet, windows: Sequence[Window], left_out: Sequence[object], *, as_json: bool
) -> None:
    """Write everything, and list the windows."""
    with writing(outlet.place):
        outlet.sink.close()
    if as_json:
        said = [str(left) for left in left_out]
        echo_json({"place": outlet.place, "windows": _table(windows), "left_out": said})
    else:
        _print_windows(windows)
        echo(f"{counted(len(windows), 'window')} in {outlet.place}")
    if not windows and not left_out:
        _print_note(
            "nothing to draw: no value of these keys came before a log mark of theirs; "
            "--every N draws by step, flexrec show lists the keys"
        )


def _table(windows: Sequence[Window]) -> list[dict[str, Any]]:
    """The windows as plain data; docs/json.md describes it."""
    return [
        {
            "win": window.win,
            "env": window.env,
            "title": window.title,
            "type": window.type,
            "traces": [
                {"name": t.name, "run": t.run, "points": None if t.x is None else len(t.x)}
                for t in window.traces
            ],
        }
        for window in windows
    ]


def _print_windows(windows: Sequence[Window]) -> None:
    for window in windows:
        lines = [trace for trace in window.traces if not trace.pale]  # those, smoothed or not
        points = sum(len(t.x) for t in lines if t.x is not None)
        names = (f"{t.name} ({t.note})" if t.note else t.name for t in lines if not t.muted)
        traces = listed(names, most=8)
        ends = f", {traces}", f": {traces}"
        is_said = traces in ("", window.title) or window.title.endswith(ends)
        shown = one_line(window.title if is_said else f"{window.title}: {traces}")
        echo(shown + (f" ({counted(points, 'point')})" if points else ""))


def _try_to_write(path: Path) -> None:
    """Raise OutputError early if no file can be created beside the path."""
    with writing(path), TemporaryFile(dir=Path(os.path.realpath(path)).parent):
        pass


def _print_note(message: str) -> None:
    echo(f"flexrec: {message}", err=True)


def environment_of(paths: Sequence[Path], env: str | None) -> str:
    """The given environment, or one named after the recordings; empty if there are none."""
    names = run_names(list(paths)) if paths else []
    left_out = {"/", *NOT_SHOWN}  # the name is also a file's name
    shown = ("".join("_" if char in left_out else char for char in name) for name in names)
    return env or listed(shown, most=4)[:80]


def definitions_of(
    presets: Sequence[str] | None,
    config: Path | None,
    phases: Sequence[str] | None,
    keys: Sequence[str] | None = None,
    *,
    smooth: float | None = None,
    log_y: bool = False,
    x: str | None = None,
) -> Definitions:
    """The definitions that --preset, --config, --phases, --key and the looks of lines ask for."""
    name = "+".join(presets) if presets else None if config else "auto"
    chosen = [phase.strip() for phase in ",".join(phases or ()).split(",") if phase.strip()]
    definitions = definitions_from(preset_name=name, definitions=config, phases=chosen)
    opts: dict[str, object] = {"smooth": smooth} if smooth is not None else {}
    opts |= {"ytype": "log"} if log_y else {}
    definitions = (definitions or Definitions()).with_opts(opts)
    definitions = definitions if x is None else definitions.along(x)
    return definitions.only(keys) if keys else definitions


def tell_unkept(why: str) -> None:
    """Tell why what a check obtained was not kept, if it differs and was not."""
    if why:
        echo(f"flexrec: what was obtained is not kept: {why}", err=True)


def tell_state(run: Recording) -> None:
    """Print to stderr where a recording ends early or has gaps."""
    if not run.complete:
        echo(f"flexrec: {run.path}: {run.state}", err=True)
    if run.dropped:
        echo(
            f"flexrec: {run.path}: {counted(run.dropped, 'event')} could not be recorded", err=True
        )


def tell_missing(run: Recording, definitions: Definitions) -> None:
    """Print to stderr the keys that were to be plotted and are not recorded, and what records
    them if they are of layers."""
    missing = missing_keys(run, definitions)
    if missing:
        how = how_to_record(missing)
        hint = f"; to record them: {how}" if how else ""
        echo(f"flexrec: not in {run.path}: {listed(missing)}{hint}", err=True)


def tell_unlogged(run: Recording, definitions: Definitions) -> None:
    """Print to stderr how many values came after the last log: they are in no window."""
    count = count_unlogged(run, definitions)
    if count:
        verb = "is" if count == 1 else "are"
        _print_note(
            f"{run.path}: {counted(count, 'value')} after the last log {verb} not plotted: call "
            "log() after all adds of an epoch, or draw by step with --every N"
        )


def tell_left_out(left_out: Sequence[object]) -> None:
    """Print to stderr what could not be drawn, and why."""
    for left in left_out:
        _print_note(f"left out: {left}")


def tell_undrawn(run: Recording, definitions: Definitions, *, all_keys: bool) -> None:
    """Print to stderr which expected keys are not drawn, and which option draws them."""
    left = undrawn_keys(run, definitions, alike=not all_keys)
    if all_keys:
        # Of layers it draws a few statistics only, as health does.
        left = [key for key in left if key.count("/") < 2 and key not in trace.KEYS]
        hints: dict[str, list[str]] = {}
        for key in left:
            name = preset_of(key)
            hint = f"--preset auto+{name} draws them, too" if name else _DEFINES
            hints.setdefault(hint, []).append(key)
    else:
        hints = {_OTHERS: left} if left else {}
    for hint, keys in hints.items():
        _print_note(f"{run.path}: not drawn: {listed(keys, most=8)}; {hint}")
