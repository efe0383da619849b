"""What can be said on the command line: every argument and option, once.

One that means something else to another command is another one. Nothing is done with them here.
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from flexrec.recorder.files.atomic_write import check_name


def _file(name: str) -> Path:
    """The path of a file to write."""
    check_name(name)
    return Path(name)


# The panels of --help.
DRAWN, WHERE, OWN = "What is drawn", "Where it is drawn", "A server of one's own"

Debug = Annotated[bool, Option("--debug", help="Show a traceback where there is an error.")]

# What a command works on.
Recording = Annotated[Path, Argument(help="A recording, made by flexrec's Recorder.")]
Recordings = Annotated[list[Path], Argument(help="Recordings, made by flexrec's Recorder.")]
RecordingsFirst = Annotated[
    list[Path] | None, Argument(help="Recordings to replay first; may be left out.")
]
Killed = Annotated[Path, Argument(help="A recording that a killed run left.")]
Name = Annotated[str | None, Argument(help="One of them, in any case; all if left out.")]
Zip = Annotated[Path, Argument(parser=_file, help="The zip file to write.")]

# What is drawn of recordings.
Preset = Annotated[
    str | None,
    Option(
        "--preset",
        "-p",
        help="Named plots, such as loss+MSE (flexrec presets); default: auto.",
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
    str | None,
    Option(
        help="The phases, with commas between; default: those in the keys.", rich_help_panel=DRAWN
    ),
]
Smooth = Annotated[
    float | None,
    Option(
        min=0,
        max=0.999,
        help="Smooth lines as TensorBoard's slider does, such as 0.9.",
        rich_help_panel=DRAWN,
    ),
]
LogY = Annotated[
    bool,
    Option("--log-y", help="Make the y axes of lines logarithmic.", rich_help_panel=DRAWN),
]
Every = Annotated[
    int | None,
    Option(
        min=1,
        help="A point for every N steps, instead of one for each recorded log.",
        rich_help_panel=DRAWN,
    ),
]
MaxPoints = Annotated[
    int,
    Option(
        min=0, help="Points that a trace is thinned to, peaks kept; 0: all.", rich_help_panel=DRAWN
    ),
]
Follow = Annotated[
    bool,
    Option(
        "--follow",
        help="Go on while training writes, until it ends, or Ctrl-C or SIGTERM.",
        rich_help_panel=DRAWN,
    ),
]

# Where it is drawn: in a server that is there, in a file, or in a server of one's own.
Server = Annotated[str, Option(help="visdom's address.", rich_help_panel=WHERE)]
Port = Annotated[int, Option(help="visdom's port.", min=0, max=65535, rich_help_panel=WHERE)]
BaseUrl = Annotated[
    str, Option(help="The path that visdom is served under.", rich_help_panel=WHERE)
]
Env = Annotated[
    str | None,
    Option(help="visdom's environment; default: the recording's name.", rich_help_panel=WHERE),
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
        help="Write one HTML file that shows the plots by itself.",
        rich_help_panel=WHERE,
    ),
]
Serve = Annotated[
    bool,
    Option("--serve", help="Start a server, as flexrec serve does, and stay.", rich_help_panel=OWN),
]
ListenPort = Annotated[
    int,
    Option(help="The port to listen on; 0: any free one.", min=0, max=65535, rich_help_panel=OWN),
]
Host = Annotated[
    str, Option(help="The address to listen on; 0.0.0.0: from everywhere.", rich_help_panel=OWN)
]
Login = Annotated[
    bool,
    Option("--login", help="Ask for VISDOM_USERNAME and VISDOM_PASSWORD.", rich_help_panel=OWN),
]
AllowHost = Annotated[
    list[str] | None,
    Option(
        "--allow-host",
        help="Another name that leads here, as a proxy's; may be given again.",
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
    Option(help="The page's files, made elsewhere by: flexrec assets bundle.", rich_help_panel=OWN),
]
NoBrowser = Annotated[bool, Option("--no-browser", help="Open no browser.", rich_help_panel=OWN)]

# What is compared with a golden file, and how it is told.
Golden = Annotated[
    Path,
    Option(
        "--golden",
        "-g",
        parser=_file,
        metavar="<path>",
        help="The golden: a visdom environment file.",
    ),
]
Update = Annotated[
    bool, Option("--update", help="Write the golden where it is missing or differs.")
]
Rtol = Annotated[float, Option(min=0, help="Tolerance relative to the golden.")]
Atol = Annotated[float, Option(min=0, help="Absolute tolerance.")]
ThinnedTo = Annotated[
    int | None,
    Option(min=0, help="Thin what is kept; default: as the golden states."),
]
Digits = Annotated[
    int | None, Option(min=1, max=17, help="Round what is kept; default: as the golden states.")
]
Full = Annotated[bool, Option("--full", help="Tell every difference and point.")]
AsJson = Annotated[bool, Option("--json", help="Tell it as JSON, for machines.")]
Show = Annotated[
    bool, Option("--show", help="Draw the difference: in visdom, or as text without one.")
]
ShowServer = Annotated[str, Option(help="visdom's address, for --show.")]
ShowPort = Annotated[int, Option(help="visdom's port.", min=1, max=65535)]
ShowEnv = Annotated[str, Option(help="visdom's environment, for --show.")]

# What is compared of recordings.
Compared = Annotated[
    list[Path],
    Argument(help="Two recordings; or one that was resumed; or, with --ranks, those of a run."),
]
ComparedKeys = Annotated[
    list[str] | None,
    Option("--key", "-k", help="Compare fitting keys alone, such as */mean; may be given again."),
]
Map = Annotated[
    list[str] | None,
    Option(
        "--map", help="What layers or keys of the first are called in the second: 'old.*=new.*'."
    ),
]
DiffRtol = Annotated[float, Option(min=0, help="Tolerance relative to the first; default: none.")]
DiffAtol = Annotated[float, Option(min=0, help="Absolute tolerance; default: none.")]
Ranks = Annotated[
    bool, Option("--ranks", help="Look for keys that all ranks agree on at first, and then not.")
]

# What is told of one recording, and made of it.
Model = Annotated[bool, Option("--model", help="The watched model's statistics, as a table.")]
Plot = Annotated[
    str | None,
    Option(help="Draw lines as text: of a preset, as loss+acc, or of a key or pattern."),
]
Seconds = Annotated[
    float | None,
    Option(min=1, help="Give up reading after so long; default: a minute and by size."),
]
KeepOriginal = Annotated[bool, Option("--keep-original", help="Keep the file as it was beside it.")]
Out = Annotated[
    Path | None,
    Option(
        "--out",
        "-o",
        parser=_file,
        metavar="<path>",
        help="The file to write, CSV or NAME.parquet; default: CSV to stdout.",
    ),
]
Strict = Annotated[
    bool,
    Option("--strict", help="End at the first value that cannot be drawn.", rich_help_panel=DRAWN),
]
Keys = Annotated[
    list[str] | None,
    Option("--key", "-k", help="A key or a pattern, such as */mean; several may be given."),
]
Only = Annotated[
    list[str] | None,
    Option(
        "--key",
        "-k",
        help="Draw fitting keys alone, such as blocks.0.*; may be given again.",
        rich_help_panel=DRAWN,
    ),
]
Force = Annotated[bool, Option("--force", help="Overwrite the file, if it is of the same kind.")]
Into = Annotated[
    Path,
    Option(
        "--into",
        parser=_file,
        metavar="<path>",
        help="The recording to make; it is none of the others.",
    ),
]
