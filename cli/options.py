"""The arguments and options of the commands, each declared once.

An option that means something else for another command is declared again under another name.
"""

import csv
import io
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option
from typer.core import TyperCommand

from flexrec.cli import completion
from flexrec.cli.output import echo
from flexrec.recorder.errors import QueryError
from flexrec.recorder.files.atomic_write import check_name
from flexrec.recorder.files.remote import check_path, copied, is_url, without_secret


def _file(name: str) -> Path:
    """The path of an output file; its name is checked."""
    check_name(name)
    return Path(name)


def _changed(name: str) -> Path:
    """The path of a recording or folder that is written, or written beside; no URL."""
    check_path(name)
    return Path(name)


def _place(name: str) -> str:
    """The place of recordings; of those at a URL, a copy."""
    if not is_url(name):
        return name
    copy = copied(name)
    echo(f"flexrec: {without_secret(name)} was copied to {copy} for now", err=True)
    return str(copy)


def _recording(name: str) -> Path:
    """The path of a recording; of one at a URL, a copy."""
    return Path(_place(name))


def column_names(text: str) -> list[str]:
    """The names in a list separated by commas; a name with a comma is quoted.

    Raises:
        QueryError: there is none.
    """
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    found = [name.strip() for row in rows for name in row]
    if not any(found):
        raise QueryError("a list of columns is empty; give names such as name,config.lr")
    return found


def joined(lists: Sequence[str] | None) -> str | None:
    """One list separated by commas, of those that an option was given with; None if with none.

    >>> joined(["config.lr", "config.opt,host"])
    'config.lr,config.opt,host'
    """
    return ",".join(lists) if lists else None


def all_of(conditions: Sequence[str] | None) -> str | None:
    """One SQL expression that holds where all of these do; None if there are none.

    >>> all_of(["a = 1"]), all_of(["a = 1 or b = 2", "c = 3"])
    ('a = 1', '(a = 1 or b = 2) and (c = 3)')
    """
    if not conditions or len(conditions) == 1:
        return conditions[0] if conditions else None
    return " and ".join(f"({condition})" for condition in conditions)


def repeated(words: Sequence[str], option: str) -> list[str]:
    """Repeat an option before each of the values that follow it, up to the next option.

    Without a value the option stays, so that click says that one is missing.

    >>> repeated(["a.h5", "--noise", "b.h5", "c.h5", "--json"], "--noise")
    ['a.h5', '--noise', 'b.h5', '--noise', 'c.h5', '--json']
    """
    found, is_its = list[str](), False
    for word, after in zip(words, [*words, "-"][1:], strict=True):
        if word == option:
            is_its = True
            found += [option] if after.startswith("-") else []
        else:
            is_its = is_its and not word.startswith("-")
            found += [option, word] if is_its else [word]
    return found


class TakesNoise(TyperCommand):
    """A command whose --noise takes several values: `--noise A.h5 B.h5`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line."""
        return super().parse_args(ctx, repeated(args, "--noise"))


# The panels of --help.
DRAWN, WHERE, OWN = "What is drawn", "Where it is drawn", "The built-in server"
RUNS, WHO = "Which runs", "Who reads many recordings"

Debug = Annotated[bool, Option("--debug", help="Show a traceback for errors.")]

# Positional arguments.
Recording = Annotated[
    Path,
    Argument(
        parser=_recording,
        help="A recording: a file that flexrec's Recorder wrote.",
        autocompletion=completion.recordings,
    ),
]
Recordings = Annotated[
    list[Path],
    Argument(
        parser=_recording,
        help="One or several recordings: files that flexrec's Recorder wrote.",
        autocompletion=completion.recordings,
    ),
]
RecordingsFirst = Annotated[
    list[Path] | None,
    Argument(
        parser=_recording,
        help="Recordings to replay into the server when it starts.",
        autocompletion=completion.recordings,
    ),
]
Shown = Annotated[
    Path,
    Argument(
        parser=_recording,
        help="A recording; or a folder, whose recordings are listed as flexrec runs does.",
        autocompletion=completion.recordings,
    ),
]
Killed = Annotated[
    Path,
    Argument(
        parser=_changed,
        help="The recording that a killed run left.",
        autocompletion=completion.recordings,
    ),
]
_NAME = "A name from the list, in upper or lower case; default: list all."
PresetName = Annotated[str | None, Argument(help=_NAME, autocompletion=completion.preset_names)]
MeterName = Annotated[str | None, Argument(help=_NAME, autocompletion=completion.meter_names)]
PlotName = Annotated[str | None, Argument(help=_NAME, autocompletion=completion.plot_names)]
Zip = Annotated[Path, Argument(parser=_file, help="The zip file to write.")]

Places = Annotated[
    list[str],
    Argument(
        parser=_place,
        help="Folders, which are searched recursively; patterns such as 'exp/*/run.h5'; "
        "recordings.",
        autocompletion=completion.recordings,
    ),
]

AlarmsFile = Annotated[
    Path | None,
    Option(
        "--alarms",
        help="Instead of plotting, report where the alarms of this TOML file would have gone off.",
        rich_help_panel=DRAWN,
    ),
]

# Which runs, and what of them.
Where = Annotated[
    list[str] | None,
    Option(
        help="Only the runs for which this SQL expression holds, such as "
        '"config.lr < 0.1 and test_acc.max > 90"; unusual names are quoted: \'"my-key".last\'. '
        "May be repeated: all must hold.",
        metavar="<str>",
        rich_help_panel=RUNS,
    ),
]
Sort = Annotated[
    str | None,
    Option(help='Sort by this, such as "test_acc.max desc".', rich_help_panel=RUNS),
]
Columns = Annotated[
    list[str] | None,
    Option(
        help="The columns, separated by commas, such as name,config.lr,loss.min; all: every one.",
        metavar="<str>",
        rich_help_panel=RUNS,
    ),
]
Limit = Annotated[int | None, Option(min=0, help="Show at most N runs.", rich_help_panel=RUNS)]
AsRecords = Annotated[bool, Option("--json", help="Print the runs as JSON.")]
AsCsv = Annotated[bool, Option("--csv", help="Print the table as CSV.")]
TableOut = Annotated[
    Path | None,
    Option(
        "--out",
        "-o",
        parser=_file,
        metavar="<path>",
        help="Write a file instead: NAME.parquet, NAME.csv or NAME.json.",
    ),
]
TablePage = Annotated[
    Path | None,
    Option(
        "--html",
        parser=_file,
        metavar="<path>",
        help="Write a self-contained HTML file with the table and plots of its columns.",
    ),
]

Replayed = Annotated[
    list[Path],
    Argument(
        parser=_recording,
        help="Recordings; or folders, which are searched recursively, and patterns such as "
        "'exp/*/run.h5'.",
        autocompletion=completion.recordings,
    ),
]
Group = Annotated[
    list[str] | None,
    Option(
        help="Draw the mean of the runs that are equal in these columns, such as config.lr or "
        "config.lr,config.opt.",
        metavar="<str>",
        rich_help_panel=RUNS,
    ),
]
Band = Annotated[
    str,
    Option(
        help="The band around a mean: std, sem, minmax, q10-q90 (percentiles), none.",
        rich_help_panel=RUNS,
    ),
]
Best = Annotated[
    str | None,
    Option(
        help="Draw the best runs by this column, such as test_acc.max, in colour, others in grey.",
        rich_help_panel=RUNS,
    ),
]
Top = Annotated[int, Option(min=1, help="How many are the best.", rich_help_panel=RUNS)]
Color = Annotated[
    str | None,
    Option(help="Colour the runs by this column, such as config.lr.", rich_help_panel=RUNS),
]

# Who reads many recordings.
Workers = Annotated[
    int | None,
    Option(min=1, help="Use this many processes of this machine.", rich_help_panel=WHO),
]
Scheduler = Annotated[
    str | None,
    Option(
        help="Use the workers of the Dask cluster with this scheduler, such as tcp://node1:8786.",
        rich_help_panel=WHO,
    ),
]
SchedulerFile = Annotated[
    Path | None,
    Option(
        metavar="<path>",
        help="The same, with the file that the scheduler wrote its address into.",
        rich_help_panel=WHO,
    ),
]

# What is drawn.
Preset = Annotated[
    list[str] | None,
    Option(
        "--preset",
        "-p",
        help="A preset, such as loss+MSE (flexrec presets lists them); default: auto.",
        metavar="<str>",
        autocompletion=completion.preset_names,
        rich_help_panel=DRAWN,
    ),
]
Config = Annotated[
    Path | None,
    Option(
        "--config", "-c", help="A TOML file that defines plots and meters.", rich_help_panel=DRAWN
    ),
]
Phases = Annotated[
    list[str] | None,
    Option(
        help="Phases, separated by commas; default: those found in the keys.",
        metavar="<str>",
        rich_help_panel=DRAWN,
    ),
]
Smooth = Annotated[
    float | None,
    Option(
        min=0,
        max=0.999,
        help="Smooth lines as TensorBoard does, with a weight such as 0.9.",
        rich_help_panel=DRAWN,
    ),
]
LogY = Annotated[
    bool,
    Option("--log-y", help="Use a logarithmic y axis for line plots.", rich_help_panel=DRAWN),
]
X = Annotated[
    str | None,
    Option(
        "--x",
        metavar="mark|step|time|relative",
        help="What x axes show: the x of each log (the default), its step, its time, or the "
        "seconds since the start.",
        autocompletion=completion.x_axes,
        rich_help_panel=DRAWN,
    ),
]
Every = Annotated[
    int | None,
    Option(
        min=1,
        help="Draw a point for every N steps instead of one for each recorded log.",
        rich_help_panel=DRAWN,
    ),
]
MaxPoints = Annotated[
    int,
    Option(
        min=0,
        help="Thin traces to at most this many points, keeping peaks; 0: draw all.",
        rich_help_panel=DRAWN,
    ),
]
Follow = Annotated[
    bool,
    Option(
        "--follow",
        help="Keep drawing while training writes, until it ends, or until Ctrl-C or SIGTERM.",
        rich_help_panel=DRAWN,
    ),
]

# Where it is drawn: in a running server, in a file, or in a server that the command starts.
Server = Annotated[str, Option(help="The address of the visdom server.", rich_help_panel=WHERE)]
Port = Annotated[
    int, Option(help="The port of the visdom server.", min=0, max=65535, rich_help_panel=WHERE)
]
BaseUrl = Annotated[
    str, Option(help="The URL path under which visdom is served.", rich_help_panel=WHERE)
]
Env = Annotated[
    str | None,
    Option(help="The visdom environment; default: the recording's name.", rich_help_panel=WHERE),
]
Save = Annotated[
    Path | None,
    Option(
        parser=_file,
        metavar="<path>",
        help="Write a visdom environment file instead of calling a server.",
        rich_help_panel=WHERE,
    ),
]
Html = Annotated[
    Path | None,
    Option(
        parser=_file,
        metavar="<path>",
        help="Write a self-contained HTML file with the plots.",
        rich_help_panel=WHERE,
    ),
]
Serve = Annotated[
    bool,
    Option(
        "--serve",
        help="Start a server as flexrec serve does, and keep it running.",
        rich_help_panel=OWN,
    ),
]
ListenPort = Annotated[
    int,
    Option(help="The port to listen on; 0: any free port.", min=0, max=65535, rich_help_panel=OWN),
]
Host = Annotated[
    str, Option(help="The address to listen on; 0.0.0.0: all interfaces.", rich_help_panel=OWN)
]
Login = Annotated[
    bool,
    Option(
        "--login",
        help="Require a login, with the VISDOM_USERNAME and VISDOM_PASSWORD set here.",
        rich_help_panel=OWN,
    ),
]
AllowHost = Annotated[
    list[str] | None,
    Option(
        "--allow-host",
        help="Accept requests for this host name too, such as a proxy's; may be repeated.",
        rich_help_panel=OWN,
    ),
]
EnvPath = Annotated[
    Path | None,
    Option(
        help="The folder of visdom's environment files; default: ~/.visdom.", rich_help_panel=OWN
    ),
]
Bundle = Annotated[
    Path | None,
    Option(
        help="The page's files: a zip file that flexrec assets bundle wrote.", rich_help_panel=OWN
    ),
]
NoBrowser = Annotated[
    bool, Option("--no-browser", help="Do not open a browser.", rich_help_panel=OWN)
]

# Comparing with a golden file, and reporting the differences.
Golden = Annotated[
    Path,
    Option(
        "--golden",
        "-g",
        parser=_file,
        metavar="<path>",
        help="The golden file: a visdom environment file, or with --run a golden of a run.",
    ),
]
OfRun = Annotated[
    bool,
    Option(
        "--run", help="Compare the values of a run, to the bit or within --rtol, not its plots."
    ),
]
CheckEvery = Annotated[
    int | None,
    Option(
        min=1,
        help="Draw a point for every N steps; with --run, keep the values of every N-th step.",
        rich_help_panel=DRAWN,
    ),
]
Update = Annotated[
    bool, Option("--update", help="Write the golden file if it is missing or differs.")
]
Rtol = Annotated[
    float | None,
    Option(min=0, help="Tolerance relative to the golden value; default: 1e-9, with --run 0."),
]
Atol = Annotated[float, Option(min=0, help="Absolute tolerance.")]
ThinnedTo = Annotated[
    int | None,
    Option(min=0, help="Thin traces to this many points; default: the number in the golden file."),
]
Digits = Annotated[
    int | None,
    Option(
        min=1,
        max=17,
        help="Round numbers to this many digits; default: the number in the golden file.",
    ),
]
Full = Annotated[bool, Option("--full", help="List every difference and every point.")]
AsJson = Annotated[bool, Option("--json", help="Print the result as JSON.")]
Show = Annotated[
    bool, Option("--show", help="Draw the differences: in visdom, or as text without a server.")
]
ShowServer = Annotated[str, Option(help="The address of the visdom server, for --show.")]
ShowPort = Annotated[int, Option(help="The port of the visdom server.", min=1, max=65535)]
ShowEnv = Annotated[str, Option(help="The visdom environment, for --show.")]

# Learning a golden of several runs.
Learnt = Annotated[
    list[Path],
    Argument(
        parser=_recording,
        help="Two or more recordings of runs that are legitimately the same.",
    ),
]
LearntKeys = Annotated[
    list[str] | None,
    Option("--key", "-k", help="Keep only this key or pattern, such as *loss; may be repeated."),
]
LearntEvery = Annotated[
    int | None,
    Option(min=1, help="Keep the values of every N-th step; default: about 300 values."),
]
LearntOut = Annotated[
    Path,
    Option("--out", "-o", parser=_file, metavar="<path>", help="The golden file to write."),
]

# Comparing recordings.
Compared = Annotated[
    list[Path],
    Argument(
        parser=_recording,
        help="Two recordings; or one, and others or folders to compare with it; or one that was "
        "resumed; or, with --ranks, those of a run's ranks.",
        autocompletion=completion.recordings,
    ),
]
ComparedKeys = Annotated[
    list[str] | None,
    Option(
        "--key",
        "-k",
        help="Compare only this key or pattern, such as */mean; may be repeated.",
        autocompletion=completion.keys,
    ),
]
Map = Annotated[
    list[str] | None,
    Option(
        "--map",
        help="Match layers or keys that have other names in the second: 'old.*=new.*'.",
    ),
]
DiffRtol = Annotated[float, Option(min=0, help="Tolerance relative to the first recording.")]
DiffAtol = Annotated[float, Option(min=0, help="Absolute tolerance.")]
Noise = Annotated[
    list[Path] | None,
    Option(
        "--noise",
        metavar="<path>...",
        help="More runs that count as the same as the first: judge the second by their spread.",
    ),
]
Ranks = Annotated[
    bool,
    Option("--ranks", help="Report keys on which all ranks agree at first and later differ."),
]

# Tagging.
Tagged = Annotated[
    Path,
    Argument(parser=_changed, help="The recording to tag.", autocompletion=completion.recordings),
]
Tag = Annotated[str | None, Argument(help="The tag, such as good; default: list the tags.")]
Note = Annotated[str, Argument(help="A note for the tag.")]
Remove = Annotated[bool, Option("--remove", help="Remove the tag.")]

# Showing, repairing and converting a recording.
Model = Annotated[
    bool, Option("--model", help="Show the statistics of the watched model's layers as a table.")
]
Patch = Annotated[
    bool,
    Option("--patch", help="Print what was not committed when the run began, as git shows it."),
]
Console = Annotated[
    bool,
    Option("--console", help="Show what the process printed: UTC time, step, ! for stderr, line."),
]
Plot = Annotated[
    str | None,
    Option(
        help="Draw lines as text: a preset, such as loss+acc, or a key or pattern.",
        autocompletion=completion.keys_and_presets,
    ),
]
Seconds = Annotated[
    float | None,
    Option(
        min=1,
        help="Give up reading after this many seconds; default: 60, and more for large files.",
    ),
]
KeepOriginal = Annotated[
    bool, Option("--keep-original", help="Keep the original file beside the repaired one.")
]
Exported = Annotated[
    list[str],
    Argument(
        parser=_place,
        help="A recording; or several, folders, and patterns such as 'exp/*/run.h5'.",
        autocompletion=completion.recordings,
    ),
]
Out = Annotated[
    str | None,
    Option(
        "--out",
        "-o",
        metavar="<path>",
        help="The file to write: CSV, or Parquet if its name ends in .parquet; default: stdout. "
        "To other trackers: the folder, or for MLflow the address of a server. Of several "
        "recordings: the folder.",
    ),
]


class Format(StrEnum):
    """The formats that export writes."""

    CSV = "csv"
    MLFLOW = "mlflow"
    PARQUET = "parquet"
    TENSORBOARD = "tensorboard"
    TRACKIO = "trackio"
    WANDB = "wandb"

    @property
    def adds_runs(self) -> bool:
        """Whether each export is a new run beside those that are there."""
        return self in (Format.MLFLOW, Format.TRACKIO, Format.WANDB)


To = Annotated[
    Format | None, Option("--to", help="What to write; default: as the name of --out ends, or CSV.")
]
Imported = Annotated[
    Path,
    Argument(
        help="TensorBoard's event files, wandb's offline files, trackio's databases, CSV, JSON "
        "lines or Parquet: a file, or a folder that is searched, for MLflow's runs too."
    ),
]
OutFolder = Annotated[
    Path,
    Option(
        "--out",
        "-o",
        parser=_changed,
        metavar="<path>",
        help="The folder of the recordings; or, for a single run, a file that ends in .h5.",
    ),
]
Strict = Annotated[
    bool,
    Option(
        "--strict",
        help="Stop with an error at the first value that cannot be drawn.",
        rich_help_panel=DRAWN,
    ),
]
Keys = Annotated[
    list[str] | None,
    Option(
        "--key",
        "-k",
        help="Only this key or pattern, such as */mean; may be repeated.",
        autocompletion=completion.keys,
    ),
]
Only = Annotated[
    list[str] | None,
    Option(
        "--key",
        "-k",
        help="Draw only this key or pattern, such as blocks.0.*; may be repeated.",
        autocompletion=completion.keys,
        rich_help_panel=DRAWN,
    ),
]
Force = Annotated[
    bool, Option("--force", help="Overwrite an existing file, if it is of the same kind.")
]
Into = Annotated[
    Path,
    Option(
        "--into",
        parser=_file,
        metavar="<path>",
        help="The output file; it must not be one of the inputs.",
    ),
]
