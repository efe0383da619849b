"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from flexrec.cli.output import echo
from flexrec.recorder.errors import FlexrecError

__all__ = ["app", "main"]

LOOPBACK = "127.0.0.1"
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
Env = Annotated[
    str | None, typer.Option(help="visdom's environment; default: the recording's name.")
]
EnvPath = Annotated[
    Path | None, typer.Option(help="The folder of visdom's environment files; default: ~/.visdom.")
]
Bundle = Annotated[
    Path | None, typer.Option(help="The page's files, made elsewhere by: flexrec assets bundle.")
]
Host = Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0: from everywhere.")]
Login = Annotated[
    bool, typer.Option("--login", help="Ask for VISDOM_USERNAME and VISDOM_PASSWORD.")
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Open no browser.")]
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
    port: Annotated[int, typer.Option(help="visdom's port.", min=0, max=65535)] = 8097,
    base_url: Annotated[str, typer.Option(help="The path that visdom is served under.")] = "",
    env: Env = None,
    max_points: Annotated[
        int, typer.Option(min=0, help="Points that a trace is thinned to, peaks kept; 0: all.")
    ] = 2000,
    save: Annotated[
        Path | None,
        typer.Option(help="Write a visdom environment file instead of calling a server."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write one HTML file that shows the plots by itself.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Start a server, as flexrec serve does, and stay.")
    ] = False,
    env_path: EnvPath = None,
    assets: Bundle = None,
    no_browser: NoBrowser = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Go on while training writes, until it ends or Ctrl-C."),
    ] = False,
) -> None:
    """Run recordings through meters and plots, into visdom.

    A server's credentials come from VISDOM_USERNAME and VISDOM_PASSWORD.
    """
    from flexrec.cli.replaying import environment_of, replay_recordings

    if sum([save is not None, html is not None, serve]) > 1:
        raise typer.BadParameter("choose one of --save, --html and --serve")
    env = environment_of(recordings, env)
    with ExitStack() as stack:
        running = None
        if serve:
            from flexrec.cli.serving import viewer

            running = stack.enter_context(
                viewer(
                    port=port,
                    host=LOOPBACK,
                    env_path=env_path,
                    assets=assets,
                    login=False,
                    env=env,
                    browser=not no_browser,
                )
            )
            if follow:
                running.open()
                running.may_raise = True
        replay_recordings(
            recordings,
            preset=preset,
            config=config,
            phases=phases,
            every=every,
            server=running.server.url if running else server,
            port=port,
            base_url="" if running else base_url,
            env=env,
            max_points=max_points,
            save=save,
            html=html,
            follow=follow,
        )
        if running:
            running.stay()


@app.command()
def serve(
    recordings: Annotated[
        list[Path] | None, typer.Argument(help="Recordings to replay first; may be left out.")
    ] = None,
    preset: Preset = None,
    config: Config = None,
    phases: Phases = None,
    every: Every = None,
    env: Env = None,
    port: Annotated[
        int, typer.Option(help="The port to listen on; 0: any free one.", min=0, max=65535)
    ] = 8097,
    host: Host = LOOPBACK,
    env_path: EnvPath = None,
    assets: Bundle = None,
    login: Login = False,
    no_browser: NoBrowser = False,
) -> None:
    """Start a visdom server whose page needs no internet, until Ctrl-C; then save and end.

    The page's files come from visdom's own folder, the cache, a bundle, or npm's registry.
    """
    from flexrec.cli.replaying import environment_of, replay_recordings
    from flexrec.cli.serving import viewer

    if recordings:
        env = environment_of(recordings, env)
    with viewer(
        port=port,
        host=host,
        env_path=env_path,
        assets=assets,
        login=login,
        env=env,
        browser=not no_browser,
    ) as running:
        if recordings:
            replay_recordings(
                recordings,
                preset=preset,
                config=config,
                phases=phases,
                every=every,
                server=running.server.url,
                port=running.server.port,
                base_url="",
                env=env,
                max_points=2000,
                save=None,
                html=None,
            )
        running.stay()


assets_app = typer.Typer(help="The files of visdom's page: what is there, and how to bring them.")
app.add_typer(assets_app, name="assets", no_args_is_help=True)


@assets_app.command("status")
def assets_status() -> None:
    """Say what of visdom's page is there, and what is missing."""
    from flexrec.cli.serving import assets_text

    typer.echo(assets_text())


@assets_app.command("bundle")
def assets_bundle(
    out: Annotated[Path, typer.Argument(help="The zip file to write.")],
) -> None:
    """Gather the page's files on a connected machine, for one that is not.

    They come from npm's registry, as npm is configured here, or from visdom's own download.
    """
    from flexrec.cli.serving import bundle_assets

    typer.echo(bundle_assets(out))


@app.command()
def check(
    recordings: Recordings,
    golden: Annotated[
        Path, typer.Option("--golden", "-g", help="The golden: a visdom environment file.")
    ],
    preset: Preset = None,
    config: Config = None,
    phases: Phases = None,
    every: Every = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write the golden where it is missing or differs.")
    ] = False,
    rtol: Annotated[float, typer.Option(min=0, help="Tolerance relative to the golden.")] = 1e-9,
    atol: Annotated[float, typer.Option(min=0, help="Absolute tolerance.")] = 0.0,
    max_points: Annotated[
        int | None, typer.Option(min=0, help="Thin what is kept; default: as the golden states.")
    ] = None,
    digits: Annotated[
        int | None,
        typer.Option(min=1, max=17, help="Round what is kept; default: as the golden states."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Tell every difference and point.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Tell it as JSON, for machines.")] = False,
    show: Annotated[
        bool,
        typer.Option("--show", help="Draw the difference: in visdom, or as text without one."),
    ] = False,
    server: Annotated[str, typer.Option(help="visdom's address, for --show.")] = "http://localhost",
    port: Annotated[int, typer.Option(help="visdom's port.", min=1, max=65535)] = 8097,
    base_url: Annotated[str, typer.Option(help="The path that visdom is served under.")] = "",
    env: Annotated[str, typer.Option(help="visdom's environment, for --show.")] = "check",
) -> None:
    """Compare what recordings would show with a golden file.

    Exits with 0 where they are equal, 1 where they differ, 2 where they cannot be compared.
    """
    from flexrec.cli.checking import check_recordings

    holds = check_recordings(
        recordings,
        golden=golden,
        preset=preset,
        config=config,
        phases=phases,
        every=every,
        rtol=rtol,
        atol=atol,
        update=update,
        max_points=max_points,
        digits=digits,
        full=full,
        as_json=as_json,
        show=show,
        server=server,
        port=port,
        base_url=base_url,
        env=env,
    )
    raise typer.Exit(0 if holds else 1)


@app.command()
def show(
    recording: Annotated[Path, typer.Argument(help="A recording, made by flexrec's Recorder.")],
    model: Annotated[
        bool, typer.Option("--model", help="The watched model's statistics, as a table.")
    ] = False,
    plot: Annotated[
        str | None,
        typer.Option(help="Draw lines as text: of a preset, as loss+acc, or of a key or pattern."),
    ] = None,
) -> None:
    """Show what is in a recording: keys, steps, last, least, greatest and mean values."""
    if plot is not None:
        from flexrec.cli.drawing import plot_text

        typer.echo(plot_text(recording, plot))
        return
    from flexrec.cli.showing import model_text, recording_text

    echo(model_text(recording) if model else recording_text(recording))


Seconds = Annotated[
    float | None,
    typer.Option(min=1, help="Give up reading after so long; default: a minute and by size."),
]


@app.command()
def verify(
    recording: Annotated[Path, typer.Argument(help="A recording, made by flexrec's Recorder.")],
    seconds: Seconds = None,
) -> None:
    """Tell whether a recording is whole (exit 0), or unfinished or damaged, and where (1)."""
    from flexrec.cli.mending import verify_recording

    verify_recording(recording, seconds)


@app.command()
def repair(
    recording: Annotated[Path, typer.Argument(help="A recording that a killed run left.")],
    keep_original: Annotated[
        bool, typer.Option("--keep-original", help="Keep the file as it was beside it.")
    ] = False,
    seconds: Seconds = None,
) -> None:
    """Put a closed copy of a killed run's recording in its place."""
    from flexrec.cli.mending import repair_recording

    repair_recording(recording, keep_original, seconds)


@app.command()
def export(
    recording: Annotated[Path, typer.Argument(help="A recording, made by flexrec's Recorder.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write; default: stdout.")
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--key", "-k", help="A key or a pattern, such as */mean; several may be given."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a recording's numbers and texts as CSV: key, step, time, value."""
    from flexrec.cli.exporting import export_recording

    export_recording(recording, out, keys=keys or (), overwrite=force)


@app.command()
def presets(name: Name = None) -> None:
    """List the presets, or tell what one plots; + puts several together."""
    from flexrec.replay.presets import preset_info, preset_names

    _tell(name, preset_names(), preset_info, lambda text: text.partition(": ")[2])


@app.command()
def meters(name: Name = None) -> None:
    """List the meters, or tell what one takes and gives."""
    from flexrec.replay.meters import meter_info, meter_types

    _tell(name, meter_types(), meter_info, lambda text: text.split("\n\n")[1])


@app.command()
def plots(name: Name = None) -> None:
    """List the plot types, or tell what one draws and its opts."""
    from flexrec.replay.plots import plot_info, plot_types

    _tell(name, plot_types(), plot_info, lambda text: text.partition(": ")[2])


def _tell(
    name: str | None,
    names: Sequence[str],
    info: Callable[[str], str],
    summary: Callable[[str], str],
) -> None:
    """Print what there is to know of one name, or all names with a line for each."""
    if name is not None:
        typer.echo(info(name))
        return
    width = max(map(len, names))
    for each in names:
        typer.echo(f"{each.ljust(width)}  {summary(info(each)).splitlines()[0]}")


def main() -> None:
    """Run the command line; an error is one line on stderr, and the exit code 2."""
    try:
        app()
    except FlexrecError as error:
        if "--debug" in sys.argv:
            raise
        echo(f"flexrec: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
