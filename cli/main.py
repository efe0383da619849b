"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flexrec.recorder.errors import FlexrecError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Record experiments offline, decide afterwards how to average and plot them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Recordings = Annotated[list[Path], typer.Argument(help="Recordings, made by flexrec's Recorder.")]
Name = Annotated[str | None, typer.Argument(help="One of them, in any case; all if left out.")]
Preset = Annotated[
    str | None,
    typer.Option("--preset", "-p", help="Named plots, such as loss+MSE (see: flexrec presets)."),
]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="A TOML file that defines plots and meters.")
]
Phases = Annotated[
    str | None, typer.Option(help="The preset's phases, with commas between; default train,test.")
]
Every = Annotated[
    int | None,
    typer.Option(min=1, help="A point for every N steps, instead of one for each recorded log."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback where there is an error.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"flexrec {metadata.version('flexrec')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Debug = False,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    context.obj = debug


@app.command()
def replay(
    recordings: Recordings,
    preset: Preset = None,
    config: Config = None,
    phases: Phases = None,
    every: Every = None,
    server: Annotated[str, typer.Option(help="visdom's address.")] = "http://localhost",
    port: Annotated[int, typer.Option(help="visdom's port.", min=1, max=65535)] = 8097,
    base_url: Annotated[str, typer.Option(help="The path that visdom is served under.")] = "",
    env: Annotated[
        str | None, typer.Option(help="visdom's environment; default: the recording's name.")
    ] = None,
    max_points: Annotated[
        int, typer.Option(min=0, help="Points that a trace is thinned to, peaks kept; 0: all.")
    ] = 2000,
    save: Annotated[
        Path | None,
        typer.Option(help="Write a visdom environment file instead of calling a server."),
    ] = None,
) -> None:
    """Run recordings through meters and plots, into visdom.

    A server's credentials come from VISDOM_USERNAME and VISDOM_PASSWORD.
    """
    from flexrec.cli.replaying import replay_recordings

    replay_recordings(
        recordings,
        preset=preset,
        config=config,
        phases=phases,
        every=every,
        server=server,
        port=port,
        base_url=base_url,
        env=env,
        max_points=max_points,
        save=save,
    )


@app.command()
def show(
    recording: Annotated[Path, typer.Argument(help="A recording, made by flexrec's Recorder.")],
    model: Annotated[
        bool, typer.Option("--model", help="The watched model's statistics, as a table.")
    ] = False,
) -> None:
    """Show what is in a recording: keys, steps, last, least, greatest and mean values."""
    from flexrec.cli.showing import model_text, recording_text

    typer.echo(model_text(recording) if model else recording_text(recording))


@app.command()
def presets(name: Name = None) -> None:
    """List the presets, or tell what one plots; + puts several together."""
    from flexrec.replay.presets import preset_info, preset_names

    typer.echo("\n".join(preset_names()) if name is None else preset_info(name))


@app.command()
def meters(name: Name = None) -> None:
    """List the meters, or tell what one takes and gives."""
    from flexrec.replay.meters import meter_info, meter_types

    typer.echo("\n".join(meter_types()) if name is None else meter_info(name))


@app.command()
def plots(name: Name = None) -> None:
    """List the plot types, or tell what one draws and its opts."""
    from flexrec.replay.plots import plot_info, plot_types

    typer.echo("\n".join(plot_types()) if name is None else plot_info(name))


def main() -> None:
    """Run the command line; an error is one line on stderr, and the exit code 2."""
    try:
        app()
    except FlexrecError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"flexrec: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
