"""What is printed is recorded line by line, and printing stays what it was."""

import io
import logging
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from flexrec.recorder import Recorder, Recording
from flexrec.recorder.writing.surroundings.console import Console, Lines
from flexrec.replay import play


def replaced(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Put other standard streams in place of those of pytest, in the test itself: pytest sets its
    own before each test."""
    found = {name: io.TextIOWrapper(io.BytesIO(), "utf-8") for name in ("stdout", "stderr")}
    for name, stream in found.items():
        monkeypatch.setattr(sys, name, stream)
    return found


def printed(stream: Any) -> str:
    stream.flush()
    content: bytes = stream.buffer.getvalue()
    return content.decode()


def lines_of(path: Path, name: str = "stdout") -> list[Any]:
    with Recording(path) as run:
        key = f"console/{name}"
        return [row.value for row in run.rows(key)] if key in run else []


@pytest.mark.parametrize(
    ("writes", "expected"),
    [
        (["a", "\n"], ["a"]),
        (["a\nb\n\nc"], ["a", "b", "c"]),
        (["a\r\n", "b\r\n"], ["a", "b"]),
        (["\r  0%|", "\r 50%|#", "\r100%|##", "\n", "done\n"], ["100%|##", "done"]),
        (["\r 50%|#", "\r     \r", "next\n"], ["next"]),  # tqdm(leave=False)
        (["\r 50%|#"], [" 50%|#"]),
        (["größe \ud800\n"], ["größe \ud800"]),
        (["\x1b[31mred\x1b[0m", "\x1b]0;title\x07 and \x1b(Bplain\n"], ["red and plain"]),
        (["\r\x1b[2K50%", "\r\x1b[2K", "next\n"], ["next"]),
        (["a\nb", "\r\x1b[1A\x1b[2Ka 2\nb 2", "\n"], ["a", "a 2", "b 2"]),  # rich
        (["a\nb\n\x1b[2F", "a 2\nb 2\nc\n"], ["a", "b", "a 2", "b 2", "c"]),
        (["\x1b[999A\x1b[999Atop", "\n" * 200], ["top"]),
    ],
)
def test_lines_are_as_a_terminal_shows_them(writes: list[str], expected: list[str]) -> None:
    lines = Lines()
    found = [line for text in writes for line in lines.add(text)]
    assert found + lines.rest() == expected
    assert lines.rest() == []


def test_a_bar_that_is_never_ended_takes_no_memory() -> None:
    lines = Lines()
    for i in range(20_000):
        lines.add(f"\r{i}%")
    assert len(lines._rows[0]) < 10
    for _ in range(20):
        lines.add("x" * 10_000)
    assert len(lines._rows[0]) < 40_000
    (line,) = lines.rest()
    assert line.endswith("…")


def test_nested_bars_are_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm").tqdm
    stream, lines, found = io.StringIO(), Lines(), list[str]()

    def write(text: str) -> int:
        found.extend(lines.add(text))
        return len(text)

    monkeypatch.setattr(stream, "write", write)
    form = {"file": stream, "mininterval": 0, "bar_format": "{desc} {n}/{total}"}
    for epoch in tqdm(range(2), desc="outer", **form):
        for _ in tqdm(range(50), desc="inner", leave=False, **form):
            pass
        tqdm.write(f"epoch {epoch}", file=stream)
    print("done", file=stream)
    assert [line.strip() for line in found + lines.rest()] == [
        *("outer 0/2", "epoch 0", "outer 1/2", "epoch 1", "outer 2/2", "done")
    ]


def test_lines_are_recorded_with_step_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = replaced(monkeypatch)
    handler = logging.StreamHandler()  # holds the stream from before
    with Recorder(tmp_path / "run.h5", console=True) as rec:
        print("first", 1)
        rec.step(7)
        rec.add(loss=1.0)
        sys.stderr.write("problem\n")
        sys.stdout.writelines(["second\n", "third"])
        handler.emit(logging.makeLogRecord({"msg": "logged"}))
    print("after")
    assert printed(streams["stdout"]) == "first 1\nsecond\nthirdafter\n"
    assert printed(streams["stderr"]) == "problem\nlogged\n"
    assert lines_of(tmp_path / "run.h5") == ["first 1", "second", "third"]
    assert lines_of(tmp_path / "run.h5", "stderr") == ["problem", "logged"]
    with Recording(tmp_path / "run.h5") as run:
        steps = [row.step for row in run.rows("console/stdout")]
        times = [row.time for row in run.rows("console/stdout")]
        windows = {window.win: window for window in play(run)}
    assert steps == [0, 7, 7]
    assert times == sorted(times)
    assert list(windows) == ["loss", "console/stdout", "console/stderr"]


def test_streams_are_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = replaced(monkeypatch)
    one = Recorder(tmp_path / "a.h5", console=True)
    two = Recorder(tmp_path / "b.h5", console=True)
    print("both")
    one.close()
    print("second")
    two.close()
    assert "write" not in vars(streams["stdout"])
    assert "write" not in vars(streams["stderr"])
    assert lines_of(tmp_path / "a.h5") == ["both"]
    assert lines_of(tmp_path / "b.h5") == ["both", "second"]


def test_another_that_wraps_in_between_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = replaced(monkeypatch)
    stream, heard = streams["stdout"], list[str]()
    rec = Recorder(tmp_path / "run.h5", console=True)
    ours = stream.write

    def theirs(text: str) -> Any:
        heard.append(text)
        return ours(text)

    monkeypatch.setattr(stream, "write", theirs)
    print("one")
    rec.close()
    print("two")
    assert stream.write is theirs
    assert heard == ["one", "\n", "two", "\n"]
    assert printed(stream) == "one\ntwo\n"
    assert lines_of(tmp_path / "run.h5") == ["one"]


def test_a_tap_that_is_dropped_is_put_on_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As IPython does: it replaces `write` while a cell runs, and puts back what it found."""
    stream = replaced(monkeypatch)["stdout"]
    plain = stream.write
    with Recorder(tmp_path / "run.h5", flush_seconds=60) as rec:
        listening = Console(rec._queue)
        stream.write = cell = Wrapping(plain)
        listening.start()
        print("in the first cell")
        stream.write = plain
        listening.tick()
        print("between")
        before = stream.write
        stream.write = cell = Wrapping(before)
        print("in the second cell")
        listening.tick()
        print("still in it")
        stream.write = before
        listening.tick()
        print("after")
        listening.close()
    assert cell.texts == ["in the second cell", "\n", "still in it", "\n"]
    assert stream.write == plain
    assert lines_of(tmp_path / "run.h5") == [
        *("in the first cell", "between", "in the second cell", "still in it", "after")
    ]


class Wrapping:
    """A `write` that notes what it passes on."""

    def __init__(self, write: Any) -> None:
        self.write, self.texts = write, list[str]()

    def __call__(self, text: str) -> Any:
        self.texts.append(text)
        return self.write(text)


def test_one_that_wrapped_before_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = replaced(monkeypatch)
    stream = streams["stdout"]
    before = stream.write

    def theirs(text: str) -> Any:
        return before(text.upper())

    stream.write = theirs
    with Recorder(tmp_path / "run.h5", console=True):
        print("a")
    assert stream.write is theirs
    assert printed(stream) == "A\n"
    assert lines_of(tmp_path / "run.h5") == ["a"]


def test_threads_print_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch)

    def work(name: int) -> None:
        for i in range(50):
            sys.stdout.write(f"{name} {i}\n")

    with Recorder(tmp_path / "run.h5", console=True):
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = lines_of(tmp_path / "run.h5")
    assert sorted(found) == sorted(f"{n} {i}" for n in range(4) for i in range(50))


def test_there_is_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch)
    with Recorder(tmp_path / "run.h5") as rec:
        bounded = Console(rec._queue, most_bytes=25)
        bounded.start()
        for _ in range(9):
            print("0123456789")
        bounded.close()
    assert lines_of(tmp_path / "run.h5") == [
        *["0123456789"] * 2,
        "flexrec: what is printed from here on is not kept",
    ]


class Talking(Console):
    """A console that warns as it records, as flexrec itself might."""

    def _record(self, name: str, lines: list[str]) -> None:
        for line in lines:
            print(f"recording {line}", file=sys.stderr)
        super()._record(name, lines)


def test_what_recording_prints_is_not_recorded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = replaced(monkeypatch)
    with Recorder(tmp_path / "run.h5") as rec:
        talking = Talking(rec._queue)
        talking.start()
        print("a")
        print("b", file=sys.stderr)
        talking.close()
    assert printed(streams["stderr"]) == "recording a\nb\nrecording b\n"
    assert lines_of(tmp_path / "run.h5", "stderr") == ["b"]


def shown(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning as Python does; pytest collects them."""
    print(message, file=sys.stderr)


def test_warnings_of_flexrec_are_recorded_and_do_not_recur(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(monkeypatch)
    with Recorder(tmp_path / "run.h5", console=True) as rec, warnings.catch_warnings():
        warnings.simplefilter("default")
        monkeypatch.setattr(warnings, "showwarning", shown)
        rec._flusher.warn("the disk is slow")
        rec._flusher.speak()
    (line,) = [line for line in lines_of(tmp_path / "run.h5", "stderr") if "slow" in line]
    assert line == "the disk is slow"


def test_an_error_in_recording_is_none_of_printing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = replaced(monkeypatch)
    rec = Recorder(tmp_path / "run.h5", console=True)

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(rec._queue, "note", fail)
        assert sys.stdout.write("a\n") == 2
    rec.close()
    assert printed(streams["stdout"]) == "a\n"


class Fixed:
    """A stream whose methods cannot be replaced."""

    __slots__ = ()

    def write(self, text: str) -> int:
        return len(text)


def test_a_stream_that_takes_no_tap_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(monkeypatch)
    monkeypatch.setattr(sys, "stdout", Fixed())
    with (  # noqa: PT031 - it is given at some time
        pytest.warns(RuntimeWarning) as given,
        Recorder(tmp_path / "run.h5", console=True, flush_seconds=0.01) as rec,
    ):
        for _ in range(3):
            print("unheard")
            rec.add(loss=1.0)
            rec.flush()
    (said,) = [str(each.message) for each in given if "console" in str(each.message)]
    assert "what is printed to sys.stdout (Fixed) is not recorded: console=True replaces" in said


@pytest.mark.parametrize("choice", ["yes", 1, None])
def test_whether_to_record_is_true_or_false(tmp_path: Path, choice: Any) -> None:
    for name in ("console", "compress"):
        wrong: dict[str, Any] = {name: choice}
        with pytest.raises(ValueError, match=f"{name} must be True or False, got {choice!r}"):
            Recorder(tmp_path / "run.h5", **wrong)
    assert not (tmp_path / "run.h5").exists()


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_stream_that_is_not_there(
    stream: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(monkeypatch)
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    with Recorder(tmp_path / "run.h5", console=True):
        print("seen", file=sys.stderr)
    assert lines_of(tmp_path / "run.h5", "stderr") == ["seen"]


def test_stderr_that_is_stdout_is_recorded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = replaced(monkeypatch)["stdout"]
    monkeypatch.setattr(sys, "stderr", stream)
    with Recorder(tmp_path / "run.h5", console=True):
        print("once", file=sys.stderr)
    assert lines_of(tmp_path / "run.h5") == ["once"]
    assert lines_of(tmp_path / "run.h5", "stderr") == []
    assert "write" not in vars(stream)


class Foreign(io.StringIO):
    """A stream whose `write` takes other arguments than Python's."""

    def write(self, data: str, urgent: bool = False) -> int:
        return super().write(data.upper() if urgent else data)


def test_a_stream_whose_write_takes_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch)
    stream = Foreign()
    monkeypatch.setattr(sys, "stdout", stream)
    with Recorder(tmp_path / "run.h5", console=True):
        stream.write("a\n", True)
        stream.write(data="b\n", urgent=False)
    assert stream.getvalue() == "A\nb\n"
    assert lines_of(tmp_path / "run.h5") == ["a", "b"]


class Proxy:
    """Stands in for a stream; what is set on it is set there, as by wrapt.ObjectProxy."""

    def __init__(self, stream: Any) -> None:
        vars(self)["stream"] = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["stream"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["stream"], name, value)


def test_a_stream_that_sets_its_attributes_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = replaced(monkeypatch)["stdout"]
    monkeypatch.setattr(sys, "stdout", Proxy(stream))
    with Recorder(tmp_path / "run.h5", flush_seconds=60) as rec:
        listening = Console(rec._queue)
        listening.start()
        for _ in range(2000):  # the taps do not pile up
            listening.tick()
        print("seen")
        listening.close()
    assert "write" not in vars(stream)
    assert "write" not in vars(sys.stdout)
    assert printed(stream) == "seen\n"
    assert lines_of(tmp_path / "run.h5") == ["seen"]


def test_a_stream_that_is_closed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch)
    with Recorder(tmp_path / "run.h5", console=True):
        print("seen")
        sys.stdout.close()
        with pytest.raises(ValueError, match="closed file"):
            print("not seen")
    assert lines_of(tmp_path / "run.h5") == ["seen"]


CHILD = """
import multiprocessing, os, sys
from flexrec.recorder import Recorder

def child():
    print("of the child")

if __name__ == "__main__":
    rec = Recorder(sys.argv[1], console=True, facts=False)
    print("before")
    worker = multiprocessing.get_context(sys.argv[2]).Process(target=child)
    worker.start()
    worker.join()
    print("after")
    sys.stdout.flush()
    os._exit(9) if sys.argv[2] == "fork" else rec.close()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_children_print_and_do_not_record(method: str, tmp_path: Path) -> None:
    script, path = tmp_path / "train.py", tmp_path / "run.h5"
    script.write_text(CHILD.replace("os._exit(9) if", "rec.flush() or os._exit(9) if"))
    done = subprocess.run(
        [sys.executable, script, path, method], capture_output=True, text=True, timeout=120
    )
    assert sorted(done.stdout.split("\n")) == ["", "after", "before", "of the child"], done.stderr
    assert lines_of(path) == ["before", "after"]


def test_a_recorder_that_nobody_holds_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = replaced(monkeypatch)
    rec = Recorder(tmp_path / "run.h5", console=True)
    flusher = rec._flusher
    del rec
    flusher._thread.join(60)
    assert flusher.has_ended
    assert "write" not in vars(streams["stdout"])


def test_capsys_sees_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    with Recorder(tmp_path / "run.h5", console=True):
        print("seen by both")
    assert capsys.readouterr().out == "seen by both\n"
    assert lines_of(tmp_path / "run.h5") == ["seen by both"]


def test_notebooks_show_and_record_what_cells_print(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    path = tmp_path / "run.h5"
    cells = [
        "from flexrec.recorder import Recorder\n"
        f"rec = Recorder({os.fspath(path)!r}, console=True, facts=False)\nprint('first')",
        "print('second')",
        "rec.close()\nprint('third')",
    ]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    nbclient.NotebookClient(notebook, timeout=120).execute()
    shown = ["".join(output["text"] for output in cell.outputs) for cell in notebook.cells]
    assert shown == ["first\n", "second\n", "third\n"]
    assert lines_of(path) == ["first", "second"]
