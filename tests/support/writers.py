"""Everything of ours that writes a file that the user names: a table for test_writing_paths.py."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory

from flexrec.cli.commands import app
from flexrec.cli.output import error_text
from flexrec.recorder import FlexrecError, Recorder, merge_recordings
from flexrec.replay.golden.snapshot import snapshot, write_golden
from flexrec.replay.server.assets import write_bundle
from flexrec.replay.sinks.env_file import EnvFileSink
from flexrec.replay.sinks.html import HtmlSink

__all__ = ["WRITERS", "Writer", "record"]


def record(path: Path) -> Path:
    """Make a small recording."""
    with Recorder(path, facts=False) as rec:
        for i in range(3):
            rec.add(train_loss=float(i))
            rec.log(i)
            rec.step()
    return path


def _command(*arguments: object) -> None:
    """Raise what the command says, as it says it."""
    try:
        app(list(map(str, arguments)), standalone_mode=False)
    except FlexrecError as error:
        raise type(error)(error_text(error)) from error


def _forced(overwrite: bool) -> list[str]:
    return ["--force"] if overwrite else []


@dataclass(frozen=True)
class Writer:
    """One of them.

    Attributes:
        ending: of the files that it writes.
        write: given the path, a recording to read, and whether it may overwrite.
        hint: what a refusal to overwrite names.
    """

    ending: str
    write: Callable[[Path, Path, bool], object]
    hint: str = "overwrite=True"


def _recorder(path: Path, _: Path, overwrite: bool) -> None:
    with Recorder(path, mode="w" if overwrite else "x", facts=False) as rec:
        rec.add(train_loss=7.0)


def _sink(path: Path, _: Path, overwrite: bool) -> None:
    EnvFileSink(path, overwrite=overwrite).close()


def _html_sink(path: Path, _: Path, overwrite: bool) -> None:
    HtmlSink(path, overwrite=overwrite).close()


def _save(path: Path, run: Path, overwrite: bool) -> None:
    _command("replay", run, "-p", "loss", "--save", path, *_forced(overwrite))


def _html(path: Path, run: Path, overwrite: bool) -> None:
    _command("replay", run, "-p", "loss", "--html", path, *_forced(overwrite))


def _export(path: Path, run: Path, overwrite: bool) -> None:
    _command("export", run, "-o", path, *_forced(overwrite))


def _merge(path: Path, run: Path, overwrite: bool) -> None:
    _command("merge", run, "--into", path, *_forced(overwrite))


def _bundle(path: Path, _: Path, overwrite: bool) -> None:
    _command("assets", "bundle", path, *_forced(overwrite))


def _learn(path: Path, run: Path, overwrite: bool) -> None:
    with TemporaryDirectory() as folder:  # as a run is not taken twice
        other = copy(run, folder)
        _command("golden", "learn", run, other, "-o", path, *_forced(overwrite))


WRITERS = {
    "Recorder": Writer("h5", _recorder, 'mode="w"'),
    "merge_recordings": Writer(
        "h5", lambda path, run, overwrite: merge_recordings([run], path, overwrite=overwrite)
    ),
    "merge": Writer("h5", _merge, "--force"),
    "EnvFileSink": Writer("json", _sink),
    "replay --save": Writer("json", _save, "--force"),
    "write_golden": Writer(
        "json", lambda path, _, overwrite: write_golden(path, snapshot([]), overwrite=overwrite)
    ),
    "golden learn": Writer("json", _learn, "--force"),
    "HtmlSink": Writer("html", _html_sink),
    "replay --html": Writer("html", _html, "--force"),
    "export": Writer("csv", _export, "--force"),
    "export to Parquet": Writer("parquet", _export, "--force"),
    "write_bundle": Writer(
        "zip", lambda path, _, overwrite: write_bundle(path, overwrite=overwrite)
    ),
    "assets bundle": Writer("zip", _bundle, "--force"),
}
