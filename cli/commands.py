"""The commands: parse, call, print. Heavy modules are imported only where a command needs them."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Annotated

import typer

from flexrec.cli import options
from flexrec.cli.output import (
    drop_output,
    echo,
    echo_as_is,
    error_text,
    escape_the_unknown,
    replace_the_closed,
)
from flexrec.recorder.errors import FlexrecError

LOOPBACK, PORT, SERVER, POINTS = "127.0.0.1", 8097, "http://localhost", 2000
OF_A_SERVER = ("env_path", "assets", "no_browser")  # options of the server that --serve starts
PLAYING = ("replay", "serve", "check")  # the commands that may do much arithmetic
app = typer.Typer(
    help="Record experiments offline, decide afterwards how to average and plot them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        echo_as_is(f"flexrec {metadata.version('flexrec')}")
        raise typer.Exit


@app.callback()
def _begin(
    context: typer.Context,
    debug: options.Debug = False,  # noqa: ARG001 - `run` sees it in sys.argv
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand not in PLAYING:
        # numpy's OpenBLAS starts a thread for each core as it is imported, which takes longer
        # than reading most recordings.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@app.command()
def replay(
    context: typer.Context,
    recordings: options.Replayed,
    where: options.Where = None,
    group: options.Group = None,
    band: options.Band = "std",
    best: options.Best = None,
    top: options.Top = 5,
    color: options.Color = None,
    preset: options.Preset = None,
    config: options.Config = None,
    phases: options.Phases = None,
    smooth: options.Smooth = None,
    log_y: options.LogY = False,
    every: options.Every = None,
    keys: options.Only = None,
    server: options.Server = SERVER,
    port: options.Port = PORT,
    base_url: options.BaseUrl = "",
    env: options.Env = None,
    max_points: options.MaxPoints = POINTS,
    save: options.Save = None,
    html: options.Html = None,
    force: options.Force = False,
    serve: options.Serve = False,
    env_path: options.EnvPath = None,
    assets: options.Bundle = None,
    no_browser: options.NoBrowser = False,
    follow: options.Follow = False,
    strict: options.Strict = False,
) -> None:
    """Plot recordings in visdom, in a visdom environment file or in an HTML file.

    Of a folder, --where, --group and --best choose what is drawn of its recordings; flexrec runs
    lists them, and their columns.

    The server's credentials are read from VISDOM_USERNAME and VISDOM_PASSWORD. The exit code is 1
    if some values could not be drawn.
    """
    from flexrec.cli import replaying

    chosen = _given(context, "save", "html", "serve")
    if len(chosen) > 1:
        raise typer.BadParameter("choose one of --save, --html and --serve")
    if save is not None or html is not None:
        _refuse(context, f"with {chosen[0]}", "server", "port", "base_url", *OF_A_SERVER)
    elif serve:
        _refuse(context, "with --serve", "server", "base_url", "force")
    else:
        _refuse(context, "without --save or --html", "force")
        _refuse(context, "without --serve", *OF_A_SERVER)
    if group is None:
        _refuse(context, "without --group", "band")
    if best is None:
        _refuse(context, "without --best", "top")
    chosen_by = replaying.Choice(where, group, band, best, top, color)
    are_many = chosen_by.is_given or not all(map(replaying.is_file, recordings))
    if are_many:
        _refuse(context, "with a folder, a pattern or a choice of runs", "follow")
    definitions = replaying.definitions_of(preset, config, phases, keys, smooth=smooth, log_y=log_y)
    env = replaying.environment_of(recordings, env)
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
            server, port, base_url = running.server.url, running.server.port, ""
            if follow:
                running.open()
                running.may_raise = True
        if save is not None:
            outlet = replaying.into_file(save, env=env, max_points=max_points, overwrite=force)
        elif html is not None:
            outlet = replaying.into_page(html, env=env, max_points=max_points, overwrite=force)
        else:
            outlet = replaying.into_server(
                server, port, base_url=base_url, env=env, max_points=max_points
            )
        if are_many:
            whole = replaying.replay_runs(
                recordings, chosen_by, definitions, outlet, every=every, strict=strict
            )
        else:
            whole = replaying.replay_recordings(
                recordings, definitions, outlet, every=every, strict=strict, follow=follow
            )
        if running:
            running.stay()
    if not whole:
        raise typer.Exit(1)


@app.command()
def serve(
    context: typer.Context,
    recordings: options.RecordingsFirst = None,
    preset: options.Preset = None,
    config: options.Config = None,
    phases: options.Phases = None,
    smooth: options.Smooth = None,
    log_y: options.LogY = False,
    every: options.Every = None,
    keys: options.Only = None,
    env: options.Env = None,
    port: options.ListenPort = PORT,
    host: options.Host = LOOPBACK,
    allow_host: options.AllowHost = None,
    env_path: options.EnvPath = None,
    assets: options.Bundle = None,
    login: options.Login = False,
    no_browser: options.NoBrowser = False,
) -> None:
    """Run a visdom server whose page needs no internet; Ctrl-C saves the environments and ends it.

    The page's files come from visdom's own folder, the cache, a bundle, or npm's registry.
    """
    from flexrec.cli import replaying
    from flexrec.cli.serving import viewer

    if not recordings:
        _refuse(
            context,
            "without recordings",
            *("preset", "config", "phases", "smooth", "log_y", "every", "keys"),
        )
    env = replaying.environment_of(recordings or (), env)
    if recordings:
        definitions = replaying.definitions_of(
            preset, config, phases, keys, smooth=smooth, log_y=log_y
        )
    with viewer(
        port=port,
        host=host,
        env_path=env_path,
        assets=assets,
        login=login,
        env=env,
        browser=not no_browser,
        hosts=allow_host or (),
    ) as running:
        if recordings:
            outlet = replaying.into_server(
                running.server.url, running.server.port, base_url="", env=env, max_points=POINTS
            )
            replaying.replay_recordings(recordings, definitions, outlet, every=every)
        running.stay()


assets_app = typer.Typer(help="List the files that visdom's page needs, or bundle them.")
app.add_typer(assets_app, name="assets", no_args_is_help=True)


@assets_app.command("status")
def assets_status() -> None:
    """Show which files of visdom's page are available, and which are missing."""
    from flexrec.cli.serving import assets_text

    echo_as_is(assets_text())


@assets_app.command("bundle")
def assets_bundle(out: options.Zip, force: options.Force = False) -> None:
    """Write the page's files to a zip file, to use on a machine without internet.

    They come from npm's registry, with npm's configuration on this machine, or from visdom's own
    download.
    """
    from flexrec.cli.serving import bundle_assets

    echo_as_is(bundle_assets(out, overwrite=force))


@app.command()
def check(
    context: typer.Context,
    recordings: options.Recordings,
    golden: options.Golden,
    preset: options.Preset = None,
    config: options.Config = None,
    phases: options.Phases = None,
    smooth: options.Smooth = None,
    log_y: options.LogY = False,
    every: options.Every = None,
    keys: options.Only = None,
    update: options.Update = False,
    rtol: options.Rtol = 1e-9,
    atol: options.Atol = 0.0,
    max_points: options.ThinnedTo = None,
    digits: options.Digits = None,
    full: options.Full = False,
    as_json: options.AsJson = False,
    show: options.Show = False,
    server: options.ShowServer = SERVER,
    port: options.ShowPort = PORT,
    base_url: options.BaseUrl = "",
    env: options.ShowEnv = "check",
) -> None:
    """Compare the plots of recordings with a golden file.

    The exit code is 0 if they are equal, 1 if they differ or some values could not be drawn, and 2
    if they cannot be compared.
    """
    from flexrec.cli.comparing.checking import check_recordings
    from flexrec.cli.replaying import definitions_of

    if not show:
        _refuse(context, "without --show", "server", "port", "base_url", "env")
    holds = check_recordings(
        recordings,
        definitions_of(preset, config, phases, keys, smooth=smooth, log_y=log_y),
        golden=golden,
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
def diff(
    recordings: options.Compared,
    keys: options.ComparedKeys = None,
    rename: options.Map = None,
    rtol: options.DiffRtol = 0.0,
    atol: options.DiffAtol = 0.0,
    ranks: options.Ranks = False,
    as_json: options.AsJson = False,
) -> None:
    """Compare two runs: report the first step, stage and layer that differ.

    Given one recording, compare the steps that its resumes repeated with the values that they
    replaced.

    The exit code is 0 if they are equal, 1 if they differ, and 2 if they cannot be compared.
    """
    from flexrec.cli.comparing.diffing import diff_recordings

    is_equal = diff_recordings(
        recordings,
        keys=keys or (),
        rename=rename or (),
        rtol=rtol,
        atol=atol,
        ranks=ranks,
        as_json=as_json,
    )
    raise typer.Exit(0 if is_equal else 1)


@app.command()
def runs(
    places: options.Places,
    where: options.Where = None,
    sort: options.Sort = None,
    columns: options.Columns = None,
    limit: options.Limit = None,
    as_json: options.AsRecords = False,
    as_csv: options.AsCsv = False,
) -> None:
    """List recordings as a table, a row for each run: state, times, config, last and best values.

    Columns are such as config.lr, test_acc.max, train_loss.last, state, started, seconds, host. A
    key has count, not_finite, step, last, min, min_at, max, max_at and mean.
    """
    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv")
    from flexrec.cli.showing.runs import show_runs

    show_runs(
        places,
        where=where,
        sort=sort,
        columns=columns,
        limit=limit,
        form="json" if as_json else "csv" if as_csv else "text",
    )


@app.command()
def tag(
    recording: options.Recording,
    name: options.Tag = None,
    note: options.Note = "",
    remove: options.Remove = False,
) -> None:
    """Tag a recording, with a note; flexrec runs shows both.

    Tags are kept in a small file beside the recording, RECORDING.tags: move the two together.
    """
    if remove and (note or name is None):
        raise typer.BadParameter("--remove takes a tag, and no note")
    from flexrec.cli.showing.runs import tagged_text

    echo(tagged_text(recording, name, note, remove=remove))


@app.command()
def show(
    context: typer.Context,
    recording: options.Shown,
    keys: options.Keys = None,
    model: options.Model = False,
    plot: options.Plot = None,
) -> None:
    """Show a recording's keys, with their steps and last, minimum, maximum and mean values."""
    if recording.is_dir():
        _refuse(context, "with a folder", "keys", "model", "plot")
        from flexrec.cli.showing.runs import show_runs

        show_runs([str(recording)])
        return
    if plot is not None:
        if keys:
            raise typer.BadParameter("--plot takes a key or pattern itself: leave --key out")
        if model:
            raise typer.BadParameter("choose one of --plot and --model")
        from flexrec.cli.drawing.lines import plot_text

        drawn, whole = plot_text(recording, plot)
        echo_as_is(drawn)
        raise typer.Exit(0 if whole else 1)
    from flexrec.cli.showing.contents import model_text, recording_text

    text = model_text if model else recording_text
    echo(text(recording, keys or ()))


@app.command()
def verify(recording: options.Recording, seconds: options.Seconds = None) -> None:
    """Check a recording: exit with 0 if it is whole, with 1 if it is unfinished or damaged."""
    from flexrec.cli.maintenance import verify_recording

    verify_recording(recording, seconds)


@app.command()
def repair(
    recording: options.Killed,
    keep_original: options.KeepOriginal = False,
    seconds: options.Seconds = None,
) -> None:
    """Replace the recording that a killed run left by a closed copy."""
    from flexrec.cli.maintenance import repair_recording

    repair_recording(recording, keep_original, seconds)


@app.command()
def export(
    recording: options.Recording,
    out: options.Out = None,
    keys: options.Keys = None,
    force: options.Force = False,
) -> None:
    """Write a recording's numbers and texts as CSV or Parquet, one row for each.

    The columns are key, step, time, value and text; a number leaves text empty, a text leaves value
    empty. --out NAME.parquet writes Parquet; --out - writes CSV to stdout, which is the default.
    """
    from flexrec.cli.exporting import export_recording

    to_stdout = out is None or str(out) == "-"
    if force and to_stdout:
        raise typer.BadParameter("--force needs a file to overwrite: give --out NAME")
    export_recording(recording, None if to_stdout else out, keys=keys or (), overwrite=force)


@app.command()
def merge(recordings: options.Recordings, into: options.Into, force: options.Force = False) -> None:
    """Merge the recordings of a run's ranks into one, as if one process had recorded them."""
    from flexrec.cli.maintenance import merge_into

    merge_into(recordings, into, overwrite=force)


@app.command()
def presets(name: options.Name = None) -> None:
    """List the presets, or show what one plots; + combines several, as in loss+MSE."""
    from flexrec.replay.definitions.presets import preset_info, preset_names

    _print_info(name, preset_names(), preset_info, lambda text: text.partition(": ")[2])


@app.command()
def meters(name: options.Name = None) -> None:
    """List the meters, or show the inputs and results of one."""
    from flexrec.replay.meters import meter_info, meter_types

    _print_info(name, meter_types(), meter_info, lambda text: text.split("\n\n")[1])


@app.command()
def plots(name: options.Name = None) -> None:
    """List the plot types, or show what one draws and which opts it has."""
    from flexrec.replay.plots.registry import plot_info, plot_types

    _print_info(name, plot_types(), plot_info, lambda text: text.partition(": ")[2])


def _given(context: typer.Context, *names: str) -> list[str]:
    """The options, of these parameters, that were given on the command line, such as `--env`."""
    given = [
        name
        for name in names
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    return [f"--{name.replace('_', '-')}" for name in given]


def _refuse(context: typer.Context, where: str, *names: str) -> None:
    """Raise BadParameter if options were given that have no effect."""
    useless = _given(context, *names)
    if useless:
        verb = "does" if len(useless) == 1 else "do"
        raise typer.BadParameter(f"{' and '.join(useless)} {verb} nothing {where}")


def _print_info(
    name: str | None,
    names: Sequence[str],
    info: Callable[[str], str],
    summary: Callable[[str], str],
) -> None:
    """Print the description of one name, or all names with the first line of each description."""
    if name is not None:
        echo_as_is(info(name))
        return
    width = max(map(len, names))
    for each in names:
        echo_as_is(f"{each.ljust(width)}  {summary(info(each)).splitlines()[0]}")


def _message(error: FlexrecError | OSError) -> str:
    if isinstance(error, FlexrecError):
        return error_text(error)
    if error.filename is not None:
        return str(error)
    return f"the output cannot be written: {error.strerror or error}"


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    echo(f"flexrec: {message}", err=True)


def run() -> None:
    """Run the command line; an error prints one line to stderr and exits with code 2."""
    replace_the_closed()
    escape_the_unknown()
    warnings.showwarning = _show_warning
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has closed it
        drop_output()
        sys.exit(1)
    except (FlexrecError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        if not isinstance(error, FlexrecError):
            drop_output()
        echo(f"flexrec: {_message(error)}", err=True)
        sys.exit(2)
    except MemoryError:
        if "--debug" in sys.argv:
            raise
        echo("flexrec: out of memory", err=True)
        sys.exit(2)
    except Exception:  # noqa: BLE001 - a bug; Python's own exit code, 1, would mean "differs"
        traceback.print_exc()
        sys.exit(2)
