"""`flexrec replay`: definitions and recordings in, windows out to a sink."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import typer

from flexrec.recorder.errors import DefinitionError
from flexrec.recorder.reader import Recording
from flexrec.replay.definitions import Definitions, load_toml
from flexrec.replay.player import missing_keys, play, run_names
from flexrec.replay.presets import PHASES, preset
from flexrec.replay.sinks import EnvFileSink, Sink

__all__ = ["definitions_of", "replay_recordings"]


def replay_recordings(
    paths: Sequence[Path],
    *,
    preset: str | None,
    config: Path | None,
    phases: str | None,
    every: int | None,
    server: str,
    port: int,
    base_url: str,
    env: str | None,
    max_points: int,
    save: Path | None,
) -> None:
    """Play the recordings into visdom, or into a file, and say what went where."""
    definitions = definitions_of(preset, config, phases)
    with ExitStack() as stack:
        runs = [stack.enter_context(Recording(path)) for path in paths]
        for run in runs:
            _tell_state(run)
        env = env or "+".join(name.replace("/", "_") for name in run_names(list(paths)))
        sink: Sink
        if save is not None:
            sink = EnvFileSink(save, env=env, max_points=max_points)
        else:
            from flexrec.replay.visdom_sink import VisdomSink  # imports visdom

            sink = VisdomSink(
                server=server, port=port, env=env, base_url=base_url, max_points=max_points
            )
        windows = play(runs, definitions, every=every)
        for run in runs:
            _tell_missing(run, definitions)
        sink.show(windows)
        sink.close()
    for window in windows:
        points = sum(len(t.x) for t in window.traces if t.x is not None)
        traces = ", ".join(t.name for t in window.traces[:8])
        more = f" and {len(window.traces) - 8} more" if len(window.traces) > 8 else ""
        typer.echo(f"{window.title}: {traces}{more}" + (f" ({points} points)" if points else ""))
    place = str(save) if save is not None else f"{server}:{port}{base_url}/env/{env}"
    typer.echo(f"{len(windows)} windows in {place}")


def definitions_of(name: str | None, config: Path | None, phases: str | None) -> Definitions:
    """The definitions that --preset, --config and --phases ask for."""
    if name is None and config is None:
        raise DefinitionError(
            "nothing to plot: give --preset NAME (flexrec presets lists them) or --config FILE.toml"
        )
    chosen = tuple(p.strip() for p in phases.split(",") if p.strip()) if phases else ()
    definitions = Definitions()
    if name is not None:
        definitions += preset(name, phases=chosen or PHASES)
    if config is not None:
        definitions += load_toml(config, phases=chosen)
    return definitions


def _tell_state(run: Recording) -> None:
    """Say on stderr where a recording ends early or has holes."""
    if not run.closed:
        typer.echo(f"flexrec: {run.path}: {run.state}", err=True)
    if run.dropped:
        typer.echo(f"flexrec: {run.path}: {run.dropped} events could not be recorded", err=True)


def _tell_missing(run: Recording, definitions: Definitions) -> None:
    """Say on stderr what was to be plotted and is not there."""
    missing = missing_keys(run, definitions)
    if missing:
        typer.echo(f"flexrec: not in {run.path}: {', '.join(missing)}", err=True)
