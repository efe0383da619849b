"""Recordings at URLs: in fsspec's memory, and on a web server of this machine."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from flexrec.cli.commands import app
from flexrec.recorder import MissingDependency, OutputError, Recorder, Recording, RecordingError
from flexrec.recorder.files import remote
from flexrec.recorder.integrations import wandb
from flexrec.replay import Runs
from flexrec.replay.sinks import EnvFileSink, HtmlSink


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    for name in ("a", "b 1", "deep/c"):
        with Recorder(tmp_path / "exp" / f"{name}.h5", config={"name": name}, facts=False) as rec:
            rec.add(loss=float(len(name)))
            rec.log(1)
    (tmp_path / "exp" / "a.h5.tags").write_text('{"flexrec_tags": 1, "tags": {"good": ""}}')
    (tmp_path / "exp" / "notes.txt").write_text("nothing")
    return tmp_path / "exp"


@pytest.fixture
def memory(exp: Path) -> Iterator[str]:
    """The same folder in fsspec's memory."""
    files = fsspec.filesystem("memory")
    files.put(str(exp), "/bucket", recursive=True)
    files.pipe("/bucket/../up.h5", b"not within")
    yield "memory://bucket"
    files.rm("/", recursive=True)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(exp: Path) -> Iterator[str]:
    """The same folder on a web server."""
    serve = partial(Quiet, directory=str(exp.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/exp"
        server.shutdown()
        thread.join()


def copies() -> list[Path]:
    folder = remote._folders.get(os.getpid())
    return [] if folder is None else [path for path in folder.rglob("*") if path.is_file()]


def command(*arguments: object) -> tuple[str, str]:
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


@pytest.mark.parametrize("where", ["memory", "web"])
def test_a_recording_is_read_and_its_copy_removed(
    where: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(where)
    before = copies()
    with Recording(f"{url}/deep/c.h5") as run:
        assert run["loss"].value.tolist() == [6.0]
        assert run.complete
        assert run.path.name == "c.h5"
        assert len(copies()) == len(before) + 1
    assert copies() == before
    run = Recording(f"{url}/a.h5")
    del run
    assert copies() == before


@pytest.mark.parametrize("where", ["memory", "web"])
def test_a_folder_is_a_table(where: str, request: pytest.FixtureRequest, cache: Path) -> None:
    url = request.getfixturevalue(where)
    runs = Runs(url)
    assert runs.table(["name", "config.name", "loss.last", "tags"]).rows == [
        ("a", "a", 1.0, "good"),
        ("b 1", "b 1", 3.0, None),
        ("deep/c", "deep/c", 6.0, None),
    ]
    assert list(cache.rglob("*.sqlite")) == []  # of copies no index is kept
    for path in runs.paths:
        assert remote.is_copy(path)
    remote.remove(runs.paths[0])
    assert not runs.paths[1].exists()


def test_a_file_that_is_listed_but_not_there_is_left_out(web: str, exp: Path) -> None:
    (exp / "gone.h5").symlink_to("nowhere.h5")  # the server lists it
    with pytest.warns(RuntimeWarning, match=r"gone.h5 in http://.*/exp cannot be read"):
        assert len(Runs(web)) == 3
    with pytest.raises(RecordingError, match=r"gone.h5 cannot be read: 404"):
        Runs(f"{web}/gone.h5")


def test_a_pattern_chooses(memory: str) -> None:
    assert Runs(f"{memory}/*.h5").table(["name"]).rows == [("a",), ("b 1",)]
    assert Runs(f"{memory}/*/c.h5", f"{memory}/a.h5").table(["config.name"]).rows == [
        ("deep/c",),
        ("a",),
    ]


def test_commands_take_urls_and_say_so(memory: str, web: str, tmp_path: Path) -> None:
    out, error = command("show", f"{web}/a.h5")
    assert "loss" in out
    assert error.startswith(f"flexrec: {web}/a.h5 was copied to ")
    assert command("runs", memory, "--columns", "name")[0].splitlines()[-1] == "3 runs"
    out, error = command("replay", memory, "--save", tmp_path / "env.json")
    assert "3 runs" in out + error
    assert command("export", f"{memory}/a.h5")[0].startswith("key,step")
    assert command("verify", f"{memory}/a.h5")[0]


def test_what_cannot_be_read_is_said(
    memory: str, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (f"{memory}/none.h5", f"{web}/none.h5"):
        with pytest.raises(RecordingError, match=r"none.h5 (does not exist|cannot be read: 404)"):
            Recording(url)
    with pytest.raises(RecordingError, match="there is no recording"):
        Runs(f"{memory}/no*.h5")
    with pytest.raises(RecordingError, match=r"cannot be read: .*[Pp]rotocol"):
        Recording("nosuch://x/run.h5")
    with pytest.raises(RecordingError, match="cannot be read") as raised:
        Recording("http://me:secret@127.0.0.1:9/run.h5")
    assert "secret" not in raised.value.message
    with pytest.raises(RecordingError) as raised:
        Recording("http://me:half@secret@127.0.0.1:9/run.h5?signature=secret&x=1")
    assert "secret" not in raised.value.message
    assert "http://…@127.0.0.1:9/run.h5?…" in raised.value.message
    before = copies()
    monkeypatch.setattr(remote, "MOST", 100 + sum(path.stat().st_size for path in before))
    for url in (f"{memory}/a.h5", f"{web}/a.h5", memory, web):  # of a web folder no size is known
        with pytest.raises(RecordingError, match="only 100 more bytes may be copied"):
            Runs(url)
    assert copies() == before
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingDependency, match=r"fsspec, which is not installed: pip install"):
        Recording(f"{memory}/a.h5")


@pytest.mark.parametrize(
    "words",
    [
        "tag s3://b/r.h5 good",
        "repair s3://b/r.h5",
        "merge {run} {run} --into s3://b/r.h5",
        "replay {run} --html s3://b/r.html",
        "replay {run} --save s3://b/r.json",
        "golden learn {run} {run} -o s3://b/r.json",
        "runs {run} -o s3://b/r.csv",
        "export {run} -o s3://b/r.csv",
        "export {run} --to tensorboard -o s3://b/r",
        "export {folder} -o s3://b/r",
        "import {folder}/notes.txt -o s3://b/r",
        "assets bundle s3://b/r.zip",
    ],
)
def test_no_command_writes_to_a_url(
    words: str, exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words.format(run=exp / "a.h5", folder=exp).split())
    assert isinstance(done.exception, OutputError)
    assert "s3://b/r" in str(done.exception)
    assert str(done.exception).endswith("it is a URL; give a path")
    assert os.listdir(tmp_path) == ["exp"]


@pytest.mark.parametrize(
    "write",
    [
        Recorder,
        lambda url: Recorder(url, mode="resume"),
        lambda url: Recorder(f"{url}/"),
        lambda url: wandb.init(dir=url),
        lambda url: Runs("exp").export(url),
        HtmlSink,
        EnvFileSink,
    ],
)
def test_nothing_is_written_to_a_url(
    write: Callable[[str], object], exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=r"cannot write http://…@b/r/?: it is a URL"):
        write("http://user:word@b/r")
    assert os.listdir(tmp_path) == ["exp"]


def test_nothing_is_left_when_the_process_ends(exp: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from flexrec.replay import Runs; from flexrec.recorder import Recording\n"
        "runs, run = Runs(sys.argv[1]), Recording(sys.argv[1] + '/a.h5')\n"
        "if os.fork() == 0: sys.exit()\n"  # which leaves its parent's copies alone
        "os.wait()\n"
        "print(run['loss'].value[0], all(path.exists() for path in runs.paths))\n"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, exp.as_uri()],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1.0 True\n"
    assert list(temporary.iterdir()) == []


def test_a_signed_url_is_one_recording(web: str) -> None:
    with Recording(f"{web}/a.h5?signature=a*b[c") as run:
        assert (run.path.name, run["loss"].value.tolist()) == ("a.h5", [1.0])


def test_messages_name_the_url(memory: str) -> None:
    files = fsspec.filesystem("memory")
    whole = files.cat("/bucket/deep/c.h5")
    files.pipe("/bucket/deep/cut.h5", whole[:-50])
    files.pipe("/bucket/text", b"no recording")
    for url in (f"{memory}/deep/cut.h5", f"{memory}/text"):
        with pytest.raises(RecordingError, match=f"^{url} is ") as raised:
            Recording(url)
        assert "flexrec-" not in str(raised.value)
        done = CliRunner().invoke(app, ["show", url])
        assert str(done.exception).startswith(f"{url} is ")
    for place in (memory, f"{memory}/deep/*.h5"):
        rows = Runs(place).where("state = 'damaged'").table(["error"]).rows
        assert rows == [("it was closed, but its end is missing now",)]
    copy = remote.copied(f"{memory}/deep/cut.h5")
    remote.remove(copy)
    with pytest.raises(RecordingError, match="flexrec-"):  # it is no copy any more
        Recording(copy)


class Served(SimpleHTTPRequestHandler):
    """A large file without an ending; counts the bytes that are sent, up to a limit."""

    sent = 0

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        with suppress(OSError):
            while Served.sent < 1 << 26:
                Served.sent += self.wfile.write(bytes(1 << 16))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_what_is_at_a_url_without_an_ending_is_not_searched_for_links(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "MOST", 1 << 20)
    with ThreadingHTTPServer(("127.0.0.1", 0), Served) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with pytest.raises(RecordingError, match="more bytes may be copied"):
            Recording(f"http://127.0.0.1:{server.server_port}/download?id=1")
        server.shutdown()
        thread.join()
    assert Served.sent < 1 << 25


def test_the_package_of_a_scheme_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, package in (("s3", "s3fs"), ("gs", "gcsfs")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingDependency, match=f"^{scheme}://b/a.h5 cannot .*{package}"):
            Recording(f"{scheme}://b/a.h5")
