"""Following a recording while it is written: every event once, and windows that end up right."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flexrec.recorder import Recorder, Recording, RecordingError, ServerError, merge_recordings
from flexrec.recorder.errors import DamagedError
from flexrec.recorder.events import Add
from flexrec.recorder.storage import follow as reading
from flexrec.recorder.storage.follow import Follower, Superseded
from flexrec.replay.definitions.definitions import Definitions, define
from flexrec.replay.definitions.presets import preset
from flexrec.replay.player.follow import FollowedRun, follow_recordings
from flexrec.replay.player.player import play
from flexrec.replay.plots.window import Window, equal
from flexrec.replay.server.server import start_server
from flexrec.replay.sinks.resending import ResendingSink
from flexrec.replay.sinks.visdom import VisdomSink
from support.crashing import crash, event_at, record
from support.event_cases import same_event
from support.recorders import recorder

LOSS = define(
    {"loss": {"type": "line"}, "k": {"type": "line"}},
    {
        "a": {"type": "AverageValueMeter", "target": "loss"},
        "k1": {"type": "LastValueMeter", "target": "k"},
    },
)


def assert_equal(found: Sequence[Window], expected: Sequence[Window]) -> None:
    assert len(found) == len(expected) > 0
    assert all(map(equal, found, expected))


def replayed(path: Path, definitions: Definitions = LOSS, **options: Any) -> list[Window]:
    with Recording(path) as run:
        return play(run, definitions, **options)


# ---------------------------------------------------------------------- events


FIFTY = """
import os, sys, time
from pathlib import Path
from support.crashing import record
from flexrec.recorder import Recorder
first = int(sys.argv[2])
with Recorder(Path(sys.argv[1]), mode="resume", facts=False, flush_seconds=0.01) as rec:
    for i in range(first, first + 50):
        record(rec, i, i + 1)
        time.sleep(0.001)
    if first == 0:
        rec.flush()
        os._exit(0)
"""


def test_follow_gives_every_event_until_the_recording_is_closed(path: Path) -> None:
    def write() -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        for first in ("0", "50"):
            command = [sys.executable, "-c", FIFTY, str(path), first]
            subprocess.run(command, check=True, env=environment)

    thread = threading.Thread(target=write)
    thread.start()
    while not path.exists():
        time.sleep(0.001)
    with Recording(path) as run:
        seen = [e for e in run.follow(poll_seconds=0.001) if not isinstance(e, Superseded)]
    thread.join()
    assert len(seen) == 100
    assert all(map(same_event, seen, map(event_at, range(100))))


def test_follow_ends_after_a_time_without_news(path: Path) -> None:
    with recorder(path) as rec:
        record(rec, 0, 3)
        rec.flush()
        with Recording(path) as run:
            assert len(list(run.follow(poll_seconds=0.01, timeout=0.05))) == 3


@pytest.mark.parametrize("more", [0, 3])
def test_another_recording_in_its_place_is_given_from_its_start(path: Path, more: int) -> None:
    rec = recorder(path)
    for i in range(5):
        rec.add(a=i)
    rec.flush()
    with Follower(path) as follower:
        assert len(list(follower.poll())) == 5
        rec.close()
        rec = recorder(path, mode="w")
        for i in range(5 + more):
            rec.add(a=100 + i)
        rec.flush()
        gone, *found = follower.poll()
        assert gone == Superseded(5)
        values = [event.values["a"] for event in found if isinstance(event, Add)]
        assert values == [100.0 + i for i in range(5 + more)]
    rec.close()


def test_what_is_not_taken_is_given_again(path: Path) -> None:
    with recorder(path) as rec, Follower(path) as follower:
        record(rec, 0, 5)
        rec.flush()
        assert next(iter(follower.poll())) == event_at(0)
        record(rec, 5, 8)
        rec.flush()
        assert [event.step for event in follower.poll()] == [0] * 2 + [1] * 3 + [2] * 2  # type: ignore[union-attr]
        assert list(follower.poll()) == []


def test_a_file_that_is_gone_for_a_moment_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorder(path) as rec:
        record(rec, 0, 5)
    moved = path.with_name("moved")
    with Follower(path) as follower:
        os.rename(path, moved)
        assert list(follower.poll()) == []
        os.rename(moved, path)
        assert len(list(follower.poll())) == 5
        assert follower.ended
    monkeypatch.setattr(reading, "_PATIENCE", 0.0)
    with Follower(path.with_name("none")) as follower:
        assert list(follower.poll()) == []
        time.sleep(0.01)
        with pytest.raises(RecordingError, match=r"can no longer be followed: .*does not exist"):
            list(follower.poll())


def test_a_growing_file_is_polled_without_reading_it_all_again(path: Path) -> None:
    with recorder(path) as rec, Follower(path) as follower:
        for i in range(20):
            record(rec, 100 * i, 100 * i + 100)
            rec.flush()
            assert len(list(follower.poll())) == 100
            if i:
                assert follower._read is not None
                assert follower._read.count == 100, "only what is new"


# ---------------------------------------------------------------------- windows: the law


@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("every", [None, 4])
def test_followed_windows_are_those_of_a_replay(path: Path, logs: bool, every: int | None) -> None:
    rec = recorder(path)
    rec.flush()
    run = FollowedRun(path, LOSS, every=every)
    sizes = []
    for epoch in range(6):
        for _ in range(5):
            rec.add(a=rec.current_step, k1=epoch)
            rec.step()
        if epoch == 3:
            rec.reset("a")
        if logs and epoch > 1:  # drawn step by step until it is seen that there are logs
            rec.log(epoch)
        rec.flush()
        assert run.poll()
        sizes.append(sum(len(t.y) for w in run.windows() for t in w.traces))
        if epoch == 2:
            crash(rec)
            rec = recorder(path, mode="resume", at_step=12)
    assert len(set(sizes)) > 3, "windows grow"
    before = run.ended
    rec.close()
    run.poll()
    assert (before, run.ended) == (False, True)
    if every is None and logs:
        assert_equal(run.windows(), replayed(path, plain=True))
    shown = follow_recordings([path], LOSS, None, every=every, tell=print).windows
    assert_equal(shown, replayed(path, every=every))


def test_several_recordings_are_followed(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.h5", "b.h5")]
    for path in paths:
        with recorder(path) as rec:
            rec.add(a=1.0)
            rec.log()
    windows = follow_recordings(paths, LOSS, None, tell=print).windows
    assert [trace.name for trace in windows[0].traces] == ["a a", "b a"]


# ---------------------------------------------------------------------- the server's side


def points(sink: VisdomSink, win: str) -> int:
    """How many points the server's window has."""
    return sum(len(trace["x"]) for trace in sink.windows()[win]["content"]["data"])


def test_layers_are_named_as_soon_as_they_are_described(path: Path) -> None:
    definitions = preset("weights")
    with Recorder(path) as rec:
        rec.add({"0/weights/mean": 1.0})
        rec.add({"0/weights/mean": 1.0}, step=1)  # so that step 0 is drawn
        rec.flush()
        run = FollowedRun(path, definitions)
        assert run.poll()
        assert [trace.name for trace in run.windows()[0].traces] == ["0"]
        rec.describe({"net": {"0": {"class": "Linear"}}})
        rec.flush()
        assert run.poll()
        assert [trace.name for trace in run.windows()[0].traces] == ["0 Linear"]
        run.close()
        late = FollowedRun(path, definitions)
        assert late.poll()
        assert [trace.name for trace in late.windows()[0].traces] == ["0 Linear"]
        late.close()


def test_layers_of_merged_recordings_are_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{rank}.h5" for rank in range(2)]
    for rank, each in enumerate(paths):
        with Recorder(each, facts=False) as rec:
            rec.add({f"{rank}/weights/mean": 1.0})
            rec.describe({"net": {str(rank): {"class": f"Stage{rank}"}}})
            rec.log(0)
    merge_recordings(paths, tmp_path / "both.h5")
    (window,) = replayed(tmp_path / "both.h5", preset("weights"))
    assert [trace.name for trace in window.traces] == ["0 Stage0", "1 Stage1"]


def test_layers_of_recordings_merged_twice_are_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{rank}.h5" for rank in range(4)]
    for rank, each in enumerate(paths):
        with Recorder(each, facts=False) as rec:
            rec.add({f"{rank}/weights/mean": 1.0})
            rec.describe({"net": {str(rank): {"class": f"Stage{rank}"}}})
            rec.log(0)
    halves = [tmp_path / "a.h5", tmp_path / "b.h5"]
    merge_recordings(paths[:2], halves[0])
    merge_recordings(paths[2:], halves[1])
    merge_recordings(halves, tmp_path / "all.h5")
    (window,) = replayed(tmp_path / "all.h5", preset("weights"))
    assert [trace.name for trace in window.traces] == [f"{k} Stage{k}" for k in range(4)]


def test_facts_of_a_replaced_file_are_not_those_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bent(*_: object) -> None:
        raise DamagedError("facts are not as they were written")

    for name in ("one.h5", "other.h5"):
        with Recorder(tmp_path / name) as rec:
            rec.flush()
            shutil.copy(tmp_path / name, tmp_path / f"live-{name}")
    with Follower(tmp_path / "live-one.h5") as follower:
        assert list(follower.poll()) == []
        assert follower.facts is not None
        monkeypatch.setattr(reading, "stored_facts", bent)
        (tmp_path / "live-other.h5").replace(tmp_path / "live-one.h5")
        assert list(follower.poll()) == []
        assert follower.facts is None


def test_a_server_that_is_restarted_gets_all_windows_again(path: Path, tmp_path: Path) -> None:
    told: list[str] = []
    rec = recorder(path)
    rec.add(a=1.0, k1=2.0)
    rec.step()
    rec.add(a=2.0)
    rec.step()
    rec.flush()
    run = FollowedRun(path, LOSS)
    with start_server(env_path=tmp_path / "one") as server:
        port = server.port
        sink = VisdomSink(server="127.0.0.1", port=port, env="e", retries=0)
        screen = ResendingSink(sink, tell=told.append)
        run.poll()
        screen.show(run.windows())
        screen.flush()
    with pytest.raises(ServerError, match="nobody listens"):
        screen.flush()
    screen.show(run.windows())
    assert told == [], "the error has told it"
    with start_server(env_path=tmp_path / "two", port=port):
        rec.add(a=3.0)
        rec.step()
        rec.add(a=4.0)
        rec.flush()
        run.poll()
        screen.show(run.windows())
        screen.flush()
        assert (points(sink, "loss"), points(sink, "k")) == (3, 1), "also what did not change"
    with start_server(env_path=tmp_path / "three", port=port):  # nobody noticed
        screen.close()
        assert (points(sink, "loss"), points(sink, "k")) == (3, 1)
        rec.close()
        windows = follow_recordings([path], LOSS, sink, tell=told.append).windows
        assert_equal(windows, replayed(path))
        assert points(sink, "loss") == 4
    with pytest.raises(ServerError, match="nobody listens"):
        follow_recordings([path], LOSS, sink, tell=told.append)
    sink.close()


def test_a_window_that_no_longer_holds_is_taken_away(path: Path, tmp_path: Path) -> None:
    rec = recorder(path)
    rec.add(a=1.0)
    rec.step()
    rec.add(k1=2.0)
    rec.step()
    rec.add(a=1.0)
    with start_server(env_path=tmp_path) as server:
        sink = VisdomSink(server="127.0.0.1", port=server.port, env="e")
        screen = ResendingSink(sink, tell=print)
        run = FollowedRun(path, LOSS)
        rec.flush()
        run.poll()
        screen.show(run.windows())
        screen.flush()
        assert set(sink.windows()) == {"loss", "k"}
        crash(rec)
        with recorder(path, mode="resume", at_step=0) as rec:
            rec.add(a=1.0)
        run.poll()
        screen.show(run.windows())
        screen.close()
        assert set(sink.windows()) == {"loss"}
        sink.close()


def test_a_server_that_dies_during_a_replay_and_comes_back(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorder(path) as rec:
        for i in range(9):
            rec.add(a=i, k1=-i)
            rec.step()
            rec.log()
    windows = replayed(path)
    with start_server(env_path=tmp_path / "one") as server:
        port = server.port
        sink = VisdomSink(server="127.0.0.1", port=port, env="e", retries=1)
        post = sink._connection.post

        def post_and_die(endpoint: str, message: Any) -> str:
            answer = post(endpoint, message)
            os.kill(server._process.pid, signal.SIGKILL)
            server._process.wait()
            return answer

        sink.probe()
        monkeypatch.setattr(sink._connection, "post", post_and_die)
        with pytest.raises(
            ServerError, match=r"nobody listens.*'k' was not drawn \(sent before it, 1 of 2: 'loss'"
        ):
            sink.show(windows)
        monkeypatch.undo()
        server.close()
    with start_server(env_path=tmp_path / "two", port=port):
        for _ in range(2):
            sink.show(windows)
            assert set(sink.windows()) == {"loss", "k"}
            assert (points(sink, "loss"), points(sink, "k")) == (9, 9), "no doubles"
    sink.close()


# ---------------------------------------------------------------------- the command

WRITER = """
import sys, time
from flexrec.recorder import Recorder
rec = Recorder(sys.argv[1], mode="resume", facts=False, flush_seconds=0.02)
print("ready", flush=True)
for i in range(30):
    rec.add(train_loss=1 / (i + 1)); rec.step()
    if i % 10 == 9: rec.log(i // 10)
    time.sleep(0.01)
rec.flush()
if sys.argv[2] == "close": rec.close()
print("done", flush=True)
time.sleep(60 if sys.argv[2] == "stay" else 0)
"""


def start(*command: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


FLEXREC = (  # a shell that started the tests in the background had them ignore Ctrl-C
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from flexrec.cli import main; main()",
)


@pytest.mark.parametrize("end", ["close", "stay"])
def test_the_command_ends_with_the_recording_or_on_ctrl_c(
    path: Path, tmp_path: Path, end: str
) -> None:
    writer = start("-c", WRITER, path, end)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    with start_server(env_path=tmp_path / "envs") as server:
        command = ("replay", "--follow", path, "--preset", "loss", "--port", server.port)
        follower = start(*FLEXREC, *command, "--env", "e")
        assert writer.stdout.readline() == "done\n"
        sink = VisdomSink(server="127.0.0.1", port=server.port, env="e")
        if end == "stay":
            until = time.monotonic() + 30
            while "loss" not in sink.windows() or points(sink, "loss") < 3:
                assert time.monotonic() < until, "the last log was never drawn"
                time.sleep(0.05)
            follower.send_signal(signal.SIGINT)
        out, error = follower.communicate(timeout=60)
        assert follower.returncode == 0, error
        assert "1 window in" in out
        assert points(sink, "loss") == 3
        sink.close()
    writer.kill()
    writer.communicate()
    assert "Loss: train (3 points)" in out


def test_sigterm_ends_following_as_ctrl_c_does(path: Path, tmp_path: Path) -> None:
    saved = tmp_path / "followed.json"
    command = ("replay", "--follow", path, "--preset", "loss", "--save", saved)
    with recorder(path) as rec:
        rec.add(train_loss=1.0)
        rec.log()
        rec.flush()
        follower = start(*FLEXREC, *command)
        wait_until_sigterm_is_caught(follower.pid)
        for _ in range(2):  # as timeout(1) does: to the process, and to its group
            follower.send_signal(signal.SIGTERM)
        out, error = follower.communicate(timeout=60)
        assert (follower.returncode, "1 window in" in out) == (0, True), error
    assert '"y": [1.0]' in saved.read_text()


def wait_until_sigterm_is_caught(pid: int) -> None:
    """It is when the process follows."""
    until = time.monotonic() + 30
    while True:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        assert time.monotonic() < until, status
        time.sleep(0.02)


def test_signal_handlers_are_put_back(path: Path) -> None:
    with recorder(path) as rec:
        rec.add(a=1.0)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    follow_recordings([path], LOSS, None, tell=print)
    assert [signal.getsignal(number) for number in numbers] == before


def test_following_into_a_file(path: Path, tmp_path: Path) -> None:
    with recorder(path) as rec:
        rec.add(train_loss=1.0)
        rec.log()
    saved = [tmp_path / "followed.json", tmp_path / "plain.json"]
    for file, option in zip(saved, (["--follow"], []), strict=True):
        command = (*FLEXREC, "replay", path, "--preset", "loss", "--save", file, *option)
        process = start(*command)
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    assert saved[0].read_bytes() == saved[1].read_bytes()
