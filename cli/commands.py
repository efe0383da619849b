"""The commands: parse, call, print. Heavy modules are imported only where a command needs them."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from flexrec.cli import options
from flexrec.cli.output import (
    drop_output,
    echo,
    echo_as_is,
    echo_json,
    error_text,
    escape_the_unknown,
    replace_the_closed,
)
from flexrec.recorder.errors import FlexrecError

if TYPE_CHECKING:
    from flexrec.cli.replaying import Outlet
    from flexrec.cli.serving import Viewer
    from flexrec.replay.runs.workers.choose import Wanted

LOOPBACK, PORT, SERVER, POINTS = "127.0.0.1", 8097, "http://localhost", 2000
OF_A_SERVER = ("env_path", "assets", "no_browser")  # options of the server that --serve starts
OF_PLOTS = (  # options of check that have no meaning for the values of a run
    *("preset", "config", "phases", "smooth", "log_y", "x", "max_points", "digits", "full"),
    *("show", "server", "port", "base_url", "env"),
)
WORKERS = ("workers", "scheduler", "scheduler_file")
BESIDE_ALARMS = (  # options of replay that have no meaning for alarms
    *("group", "band", "best", "top", "color", "preset", "config", "phases", "smooth", "log_y"),
    *("x", "every", "keys", "server", "port", "base_url", "env", "max_points", "save", "html"),
    *("force", "serve", "follow", *OF_A_SERVER, *WORKERS),
)
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
    x: options.X = None,
    every: options.Every = None,
    keys: options.Only = None,
    alarms: options.AlarmsFile = None,
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
    as_json: options.AsJson = False,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    scheduler_file: options.SchedulerFile = None,
) -> None:
    """Plot recordings in visdom, in a visdom environment file or in an HTML file.

    Of a folder, --where, --group and --best choose what is drawn of its recordings; flexrec runs
    lists them, and their columns.

    The server's credentials are read from VISDOM_USERNAME and VISDOM_PASSWORD. The exit code is 1
    if some values could not be drawn, or if one of --alarms would have gone off.
    """
    from flexrec.cli import replaying
    from flexrec.cli.showing.runs import is_file

    if alarms is not None:
        _refuse(context, "with --alarms", *BESIDE_ALARMS)
        _tell_alarms(recordings, alarms, options.all_of(where), strict=strict, as_json=as_json)
        return
    _check_where(context)
    if group is None:
        _refuse(context, "without --group", "band")
    if best is None:
        _refuse(context, "without --best", "top")
    choice = replaying.Choice(options.all_of(where), options.joined(group), band, best, top, color)
    are_many = choice.is_given or not all(map(is_file, recordings))
    if are_many:
        _refuse(context, "with a folder, a pattern or a choice of runs", "follow")
    else:
        _refuse(context, "without a folder, a pattern or a choice of runs", *WORKERS)
    definitions = replaying.definitions_of(
        preset, config, phases, keys, smooth=smooth, log_y=log_y, x=x
    )
    env = replaying.environment_of(recordings, env)
    into = Where(save, html, force, serve, server, port, base_url, env_path, assets, no_browser)
    with _outlet(into, env=env, max_points=max_points) as (outlet, running):
        if running and follow:
            running.open()
            running.may_raise = True
        if are_many:
            with _workers(workers, scheduler, scheduler_file) as who:
                whole = replaying.replay_runs(
                    *(recordings, choice, definitions, outlet),
                    every=every,
                    strict=strict,
                    as_json=as_json,
                    workers=who,
                )
        else:
            whole = replaying.replay_recordings(
                recordings,
                definitions,
                outlet,
                every=every,
                strict=strict,
                follow=follow,
                as_json=as_json,
            )
        if running:
            running.stay()
    if not whole:
        raise typer.Exit(1)


def _tell_alarms(
    places: Sequence[Path], path: Path, where: str | None, *, strict: bool, as_json: bool
) -> None:
    from flexrec.cli import replaying
    from flexrec.cli.showing.alarms import tell_alarms
    from flexrec.cli.showing.runs import is_file

    are_many = where is not None or not all(map(is_file, places))
    paths = replaying.chosen_runs(places, where).paths if are_many else places
    if not tell_alarms(paths, path, are_many=are_many, strict=strict, as_json=as_json):
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
    x: options.X = None,
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
            *("preset", "config", "phases", "smooth", "log_y", "x", "every", "keys"),
        )
    env = replaying.environment_of(recordings or (), env)
    if recordings:
        definitions = replaying.definitions_of(
            preset, config, phases, keys, smooth=smooth, log_y=log_y, x=x
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
def assets_status(as_json: options.AsJson = False) -> None:
    """Show which files of visdom's page are available, and which are missing."""
    from flexrec.cli.serving import assets_table, assets_text

    if as_json:
        echo_json(assets_table())
    else:
        echo_as_is(assets_text())


@assets_app.command("bundle")
def assets_bundle(
    out: options.Zip, force: options.Force = False, as_json: options.AsJson = False
) -> None:
    """Write the page's files to a zip file, to use on a machine without internet.

    They come from npm's registry, with npm's configuration on this machine, or from visdom's own
    download.
    """
    from flexrec.cli.serving import bundle_assets

    bundle_assets(out, overwrite=force, as_json=as_json)


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
    x: options.X = None,
    every: options.CheckEvery = None,
    keys: options.Only = None,
    run: options.OfRun = False,
    update: options.Update = False,
    rtol: options.Rtol = None,
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
    """Compare the plots of recordings, or with --run the values of one, with a golden file.

    The exit code is 0 if they are equal, 1 if they differ or some values could not be drawn, and 2
    if they cannot be compared.
    """
    if run:
        _refuse(context, "with --run", *OF_PLOTS)
        from flexrec.cli.comparing.running import check_training

        holds = check_training(
            recordings,
            golden=golden,
            keys=keys or (),
            rtol=rtol or 0.0,
            atol=atol,
            every=every,
            update=update,
            as_json=as_json,
        )
        raise typer.Exit(0 if holds else 1)
    from flexrec.cli.comparing.checking import check_recordings
    from flexrec.cli.replaying import definitions_of

    if not show:
        _refuse(context, "without --show", "server", "port", "base_url", "env")
    holds = check_recordings(
        recordings,
        definitions_of(preset, config, phases, keys, smooth=smooth, log_y=log_y, x=x),
        golden=golden,
        every=every,
        rtol=1e-9 if rtol is None else rtol,
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


golden_app = typer.Typer(help="Make golden files of training runs.")
app.add_typer(golden_app, name="golden", no_args_is_help=True)


@golden_app.command("learn")
def golden_learn(
    recordings: options.Learnt,
    out: options.LearntOut,
    keys: options.LearntKeys = None,
    every: options.LearntEvery = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Make a golden of several equal runs, with tolerances from their differences.

    flexrec check --run compares another run with it.
    """
    from flexrec.cli.comparing.running import learn_from

    learn_from(recordings, out, keys=keys or (), every=every, overwrite=force, as_json=as_json)


@app.command(cls=options.TakesNoise)
def diff(
    context: typer.Context,
    recordings: options.Compared,
    keys: options.ComparedKeys = None,
    rename: options.Map = None,
    rtol: options.DiffRtol = 0.0,
    atol: options.DiffAtol = 0.0,
    noise: options.Noise = None,
    ranks: options.Ranks = False,
    as_json: options.AsJson = False,
    html: options.Html = None,
    save: options.Save = None,
    force: options.Force = False,
    serve: options.Serve = False,
    server: options.Server = SERVER,
    port: options.Port = PORT,
    base_url: options.BaseUrl = "",
    env: options.Env = None,
    env_path: options.EnvPath = None,
    assets: options.Bundle = None,
    no_browser: options.NoBrowser = False,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    scheduler_file: options.SchedulerFile = None,
) -> None:
    """Compare two runs: report the first step, stage and layer that differ.

    Given more, or folders, compare each of them with the first, and print a line for each. Given
    one recording, compare the steps that its resumes repeated with the values that they
    replaced. With --noise, report what lies beyond the spread of the first and other runs. With
    --html, --save, --serve or --server, also draw how far apart the layers and metrics are.

    The exit code is 0 if they are equal, 1 if they differ, and 2 if they cannot be compared.
    """
    from flexrec.cli.replaying import environment_of
    from flexrec.cli.showing.runs import is_file

    are_many = not ranks and (len(recordings) > 2 or not all(map(is_file, recordings[1:])))
    of_two = [*_given(context, "noise"), *_given(context, "html", "save", "serve", "server")]
    if of_two and (ranks or are_many or len(recordings) != 2):
        raise typer.BadParameter(f"{of_two[0]} needs two recordings to compare: A.h5 B.h5")
    if ranks or (len(recordings) == 1 and not are_many):
        _refuse(context, "without two recordings to compare", "rename")
    is_drawn = bool(_given(context, "html", "save", "serve", "server"))
    if is_drawn:
        _check_where(context)
    else:
        names = ("force", "port", "base_url", "env", *OF_A_SERVER)
        _refuse(context, "without --html, --save, --serve or --server", *names)
    from flexrec.cli.comparing.diffing import diff_recordings, diff_with_many

    if are_many:
        with _workers(workers, scheduler, scheduler_file) as who:
            code = diff_with_many(
                *(recordings[0], recordings[1:]),
                keys=keys or (),
                rename=rename or (),
                rtol=rtol,
                atol=atol,
                as_json=as_json,
                workers=who,
            )
        raise typer.Exit(code)
    _refuse(context, "without more than two recordings, or a folder", *WORKERS)
    where = Where(save, html, force, serve, server, port, base_url, env_path, assets, no_browser)
    drawing = _outlet(where, env=environment_of(recordings, env), max_points=POINTS)
    with drawing if is_drawn else nullcontext((None, None)) as (outlet, running):
        is_equal = diff_recordings(
            recordings,
            keys=keys or (),
            rename=rename or (),
            rtol=rtol,
            atol=atol,
            noise=noise or (),
            ranks=ranks,
            as_json=as_json,
            outlet=outlet,
        )
        if running:
            running.stay()
    raise typer.Exit(0 if is_equal else 1)


@app.command()
def runs(
    context: typer.Context,
    places: options.Places,
    where: options.Where = None,
    sort: options.Sort = None,
    columns: options.Columns = None,
    limit: options.Limit = None,
    as_json: options.AsRecords = False,
    as_csv: options.AsCsv = False,
    out: options.TableOut = None,
    html: options.TablePage = None,
    force: options.Force = False,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    scheduler_file: options.SchedulerFile = None,
) -> None:
    """List recordings as a table, a row for each run: state, times, config, last and best values.

    Columns are such as config.lr, test_acc.max, train_loss.last, state, started, seconds, host. A
    key has count, not_finite, step, last, min, min_at, max, max_at and mean.
    """
    given = _given(context, "as_json", "as_csv", "out", "html")
    if len(given) > 1:
        raise typer.BadParameter(f"choose one of {' and '.join(given)}")
    if not (out or html):
        _refuse(context, "without --out or --html", "force")
    from flexrec.cli.showing.runs import chosen_runs, print_runs, write_page, write_runs

    with _workers(workers, scheduler, scheduler_file) as who:
        found = chosen_runs(
            places, where=options.all_of(where), sort=sort, limit=limit, workers=who
        )
        names = options.joined(columns)
        if html is not None:
            write_page(found, names, html, overwrite=force)
        elif out is not None:
            write_runs(found, names, out, overwrite=force)
        else:
            print_runs(found, names, form="json" if as_json else "csv" if as_csv else "text")


@app.command()
def tag(
    recording: options.Tagged,
    name: options.Tag = None,
    note: options.Note = "",
    remove: options.Remove = False,
    as_json: options.AsJson = False,
) -> None:
    """Tag a recording, with a note; flexrec runs shows both.

    Tags are kept in a small file beside the recording, RECORDING.tags: move the two together.
    """
    if remove and (note or name is None):
        raise typer.BadParameter("--remove takes a tag, and no note")
    from flexrec.cli.showing.runs import tag_recording

    tag_recording(recording, name, note, remove=remove, as_json=as_json)


@app.command()
def show(
    context: typer.Context,
    recording: options.Shown,
    keys: options.Keys = None,
    model: options.Model = False,
    patch: options.Patch = False,
    plot: options.Plot = None,
    console: options.Console = False,
    as_json: options.AsJson = False,
) -> None:
    """Show a recording's keys, with their steps and last, minimum, maximum and mean values.

    Of more than 1,000 keys, those with the fewest slashes are listed; -k chooses others.
    """
    if os.path.isdir(recording):
        _refuse(context, "with a folder", "keys", "model", "patch", "plot", "console")
        from flexrec.cli.showing.runs import chosen_runs, print_runs

        print_runs(chosen_runs([str(recording)]), form="json" if as_json else "text")
        return
    if console:
        _refuse(context, "with --console", "keys", "model", "patch", "plot")
        from flexrec.cli.showing.console import show_console

        show_console(recording, as_json=as_json)
        return
    if plot is not None:
        if keys:
            raise typer.BadParameter("--plot takes a key or pattern itself: leave --key out")
        if model or as_json:
            other = "--model" if model else "--json"
            raise typer.BadParameter(f"choose one of --plot and {other}")
        from flexrec.cli.drawing.lines import plot_text

        drawn, whole = plot_text(recording, plot)
        echo_as_is(drawn)
        raise typer.Exit(0 if whole else 1)
    from flexrec.cli.showing.contents import (
        model_data,
        model_text,
        patch_text,
        recording_data,
        recording_text,
    )

    if patch:
        if keys or model or as_json:
            raise typer.BadParameter(
                "--patch takes no other option; --json alone has the patch too"
            )
        # A file gets every byte, so that git can apply it.
        (echo if sys.stdout.isatty() else echo_as_is)(patch_text(recording))
        return
    if as_json:
        data = model_data if model else recording_data
        echo_json(data(recording, keys or ()))
        return
    text = model_text if model else recording_text
    echo(text(recording, keys or ()))


@app.command()
def verify(
    recording: options.Recording,
    seconds: options.Seconds = None,
    as_json: options.AsJson = False,
) -> None:
    """Check a recording: exit with 0 if it is whole, with 1 if it is unfinished or damaged."""
    from flexrec.cli.maintenance import verify_recording

    verify_recording(recording, seconds, as_json=as_json)


@app.command()
def repair(
    recording: options.Killed,
    keep_original: options.KeepOriginal = False,
    seconds: options.Seconds = None,
    as_json: options.AsJson = False,
) -> None:
    """Replace the recording that a killed run left by a closed copy."""
    from flexrec.cli.maintenance import repair_recording

    repair_recording(recording, keep_original, seconds, as_json=as_json)


@app.command()
def export(
    context: typer.Context,
    recordings: options.Exported,
    out: options.Out = None,
    to: options.To = None,
    where: options.Where = None,
    keys: options.Keys = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    scheduler_file: options.SchedulerFile = None,
) -> None:
    """Write a recording's numbers and texts as CSV or Parquet, or for another tracker.

    The columns are key, step, time, value and text; a number leaves text empty, a text leaves value
    empty. --out NAME.parquet writes Parquet; --out - writes CSV to stdout, which is the default.
    --to tensorboard --out FOLDER writes an event file; wandb, an offline run for `wandb sync`;
    mlflow and trackio, a run in a folder of theirs, or at the address of MLflow's server.

    Of several recordings, a folder or a pattern, --out FOLDER writes a dataset of Parquet files:
    runs.parquet has a row for each run, values/*.parquet those of all, with the run's name. The
    exit code is 1 if some recordings could not be read, and are left out.
    """
    from flexrec.cli.converting.exporting import export_recording, export_runs
    from flexrec.cli.showing.runs import is_file

    if where is not None or len(recordings) != 1 or not is_file(recordings[0]):
        _refuse(context, "with several recordings, which are written as Parquet", "to")
        if out in (None, "-"):
            raise typer.BadParameter(
                "several recordings are written as a folder: give --out FOLDER"
            )
        with _workers(workers, scheduler, scheduler_file) as who:
            is_whole = export_runs(
                *(recordings, out),
                where=options.all_of(where),
                keys=keys or (),
                overwrite=force,
                as_json=as_json,
                workers=who,
            )
        if not is_whole:
            raise typer.Exit(1)
        return
    _refuse(context, "without several recordings, a folder or a pattern", *WORKERS)
    if force and to is not None and to.adds_runs:
        raise typer.BadParameter(f"--force does nothing with --to {to}, which adds a run")
    if out is None or out == "-":
        if force or as_json or to not in (None, options.Format.CSV):
            given = "--force" if force else "--json" if as_json else f"--to {to}"
            raise typer.BadParameter(f"{given} needs a file to write: give --out NAME")
        out = None
    export_recording(recordings[0], out, to=to, keys=keys or (), overwrite=force, as_json=as_json)


@app.command("import")
def import_(
    path: options.Imported,
    out: options.OutFolder,
    force: options.Force = False,
    as_json: options.AsJson = False,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    scheduler_file: options.SchedulerFile = None,
) -> None:
    """Make recordings of the runs of other tools: TensorBoard, wandb, MLflow, trackio, tables.

    A folder with TensorBoard's event files is one run, and so is a run's folder of MLflow's. So is
    each CSV, JSON lines or wandb file; a database of trackio's or MLflow's, and Parquet that
    flexrec export wrote, may hold several. Other files in a folder are ignored. Values that cannot
    be imported are reported.
    """
    from flexrec.cli.converting.importing import import_from

    with _workers(workers, scheduler, scheduler_file) as who:
        import_from(path, out, overwrite=force, as_json=as_json, workers=who)


@app.command()
def merge(
    recordings: options.Recordings,
    into: options.Into,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Merge the recordings of a run's ranks into one, as if one process had recorded them."""
    from flexrec.cli.maintenance import merge_into

    merge_into(recordings, into, overwrite=force, as_json=as_json)


@app.command()
def presets(name: options.PresetName = None, as_json: options.AsJson = False) -> None:
    """List the presets, or show what one plots; + combines several, as in loss+MSE."""
    from flexrec.replay.definitions.presets import preset_info, preset_names

    _print_info(
        name, preset_names(), preset_info, lambda text: text.partition(": ")[2], as_json=as_json
    )


@app.command()
def meters(name: options.MeterName = None, as_json: options.AsJson = False) -> None:
    """List the meters, or show the inputs and results of one."""
    from flexrec.replay.meters import meter_info, meter_types

    _print_info(
        name, meter_types(), meter_info, lambda text: text.split("\n\n")[1], as_json=as_json
    )


@app.command()
def plots(name: options.PlotName = None, as_json: options.AsJson = False) -> None:
    """List the plot types, or show what one draws and which opts it has."""
    from flexrec.replay.plots.registry import plot_info, plot_types

    _print_info(
        name, plot_types(), plot_info, lambda text: text.partition(": ")[2], as_json=as_json
    )


class Where(NamedTuple):
    """Where windows go: a file, a server that the command starts, or one that runs."""

    save: Path | None
    html: Path | None
    force: bool
    serve: bool
    server: str
    port: int
    base_url: str
    env_path: Path | None
    assets: Path | None
    no_browser: bool


def _check_where(context: typer.Context) -> None:
    """Raise BadParameter if options of `Where` exclude each other, or have no effect."""
    chosen = _given(context, "save", "html", "serve")
    if len(chosen) > 1:
        raise typer.BadParameter("choose one of --save, --html and --serve")
    if chosen == ["--serve"]:
        _refuse(context, "with --serve", "server", "base_url", "force", "as_json")
    elif chosen:
        _refuse(context, f"with {chosen[0]}", "server", "port", "base_url", *OF_A_SERVER)
    else:
        _refuse(context, "without --save or --html", "force")
        _refuse(context, "without --serve", *OF_A_SERVER)


@contextmanager
def _outlet(
    where: Where, *, env: str, max_points: int
) -> Iterator[tuple["Outlet", "Viewer | None"]]:
    """The outlet that windows go to, and the server if it is one that the command starts."""
    from flexrec.cli import replaying

    with ExitStack() as stack:
        server, port, base_url = where.server, where.port, where.base_url
        running = None
        if where.serve:
            from flexrec.cli.serving import viewer

            running = stack.enter_context(
                viewer(
                    port=port,
                    host=LOOPBACK,
                    env_path=where.env_path,
                    assets=where.assets,
                    login=False,
                    env=env,
                    browser=not where.no_browser,
                )
            )
            server, port, base_url = running.server.url, running.server.port, ""
        if where.save is not None:
            outlet = replaying.into_file(
                where.save, env=env, max_points=max_points, overwrite=where.force
            )
        elif where.html is not None:
            outlet = replaying.into_page(
                where.html, env=env, max_points=max_points, overwrite=where.force
            )
        else:
            outlet = replaying.into_server(
                server, port, base_url=base_url, env=env, max_points=max_points
            )
        yield outlet, running


@contextmanager
def _workers(
    count: int | None, scheduler: str | None, scheduler_file: Path | None
) -> Iterator["Wanted"]:
    """Who reads many recordings: processes, a cluster that is left at the end, or nobody else."""
    if sum(each is not None for each in (count, scheduler, scheduler_file)) > 1:
        raise typer.BadParameter("choose one of --workers, --scheduler and --scheduler-file")
    if scheduler is None and scheduler_file is None:
        yield count
        return
    from flexrec.replay.runs.workers.cluster import connected

    with connected(address=scheduler, file=scheduler_file) as client:
        yield client


def _given(context: typer.Context, *names: str) -> list[str]:
    """The options, of these parameters, that were given on the command line, such as `--env`."""
    given = [
        name
        for name in names
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    options = {each.name: max(each.opts, key=len) for each in context.command.params}
    return [options[name] for name in given]


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
    *,
    as_json: bool,
) -> None:
    """Print the description of one name, or all names with the first line of each description."""
    if name is not None:
        text = info(name)
        if as_json:
            echo_json({"name": name, "description": text})
        else:
            echo_as_is(text)
        return
    firsts = {each: summary(info(each)).splitlines()[0] for each in names}
    if as_json:
        echo_json([{"name": each, "summary": first} for each, first in firsts.items()])
        return
    width = max(map(len, names))
    for each, first in firsts.items():
        echo_as_is(f"{each.ljust(width)}  {first}")


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
