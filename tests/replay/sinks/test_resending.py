"""Live windows: no server holds up who draws them, and all that was drawn arrives."""

import copy
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flexrec.recorder.errors import ServerError
from flexrec.replay import FlexLogger
from flexrec.replay.engine.window_builder import overlay
from flexrec.replay.plots.window import Trace, Window
from flexrec.replay.server.server import Server, start_server
from flexrec.replay.sinks import resending
from flexrec.replay.sinks.palette import Palette
from flexrec.replay.sinks.resending import ResendingSink
from flexrec.replay.sinks.visdom import VisdomSink
from support.fake_http import answering

FEW = 5


def logger_of(port: int, count: int = FEW, **options: Any) -> FlexLogger:
    """A logger of so many plots, each with a meter of its own."""
    plots = {f"p{i}": {"type": "line"} for i in range(count)}
    meters = {f"m{i}": {"type": "AverageValueMeter", "target": f"p{i}"} for i in range(count)}
    return FlexLogger(plots, meters, port=port, **options)


def log(logger: FlexLogger, x: int, count: int = FEW) -> None:
    logger.add({f"m{i}": float(x) for i in range(count)})
    logger.log(x)


def flush(logger: FlexLogger) -> None:
    """Wait until all is sent."""
    assert isinstance(logger._sink, ResendingSink)
    logger._sink.flush()


def sender_of(logger: FlexLogger) -> Any:
    assert isinstance(logger._sink, ResendingSink)
    return logger._sink._sender


def points(port: int, env: str) -> dict[str, int]:
    """How many points each window of an environment has."""
    sink = VisdomSink(port=port, env=env)
    windows = sink.windows()
    sink.close()
    return {name: len(kept["content"]["data"][0]["y"]) for name, kept in windows.items()}


def every(count: int, number: int = FEW) -> dict[str, int]:
    """So many points in each window."""
    return {f"p{i}": count for i in range(number)}


def killed(server: Server) -> None:
    """End the server as kill -9 does: it saves nothing."""
    os.kill(server._process.pid, signal.SIGKILL)
    server.wait()
    server.close()


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The server hangs while the block runs."""
    os.kill(server._process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server._process.pid, signal.SIGCONT)


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def env() -> str:
    return uuid.uuid4().hex


# ---------------------------------------------------------------------- training goes on


def test_nobody_waits_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(resending, "_wait", lambda _, seconds: waits.append(seconds))
    answers = threading.Event()
    asked: list[list[float]] = []

    def slow(path: str, message: dict[str, Any]) -> tuple[int, str]:
        if path == "/win_exists":
            return 200, "true" if asked else "false"
        asked.append(message["data"][0]["y"])
        assert answers.wait(60)
        return 200, message["win"]

    with answering(slow) as port:
        logger = logger_of(port, 1, timeout=60)
        for x in range(20):
            log(logger, x, 1)
        assert waits == [resending.FIRST_SECONDS], "the first alone"
        monkeypatch.undo()
        answers.set()  # a log that waits never comes here
        logger.close()
    assert asked[0] == [0.0]
    assert len(asked[-1]) == 20
    assert len(asked) <= 3, "the latest only"


def test_a_server_that_hangs_holds_nobody_up_and_gets_all_when_it_goes_on(
    tmp_path: Path, env: str
) -> None:
    with start_server(env_path=tmp_path) as server:
        logger = logger_of(server.port, env=env, timeout=0.2)
        log(logger, 0)
        with stopped(server), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for x in range(1, 50):
                log(logger, x)
                if x == 10:
                    until(lambda: sender_of(logger).failure is not None)
        logger.close()
        (said,) = caught
        assert "stays silent" in str(said.message)
        assert points(server.port, env) == every(50)


def test_an_absent_server_is_told_of_at_the_first_log(tmp_path: Path, env: str) -> None:
    with start_server(env_path=tmp_path / "a") as server:
        port = server.port
    logger = logger_of(port, env=env)
    with pytest.warns(RuntimeWarning, match=r"nobody listens.* windows are kept in memory"):
        log(logger, 0)
    for x in range(1, 5):
        log(logger, x)  # and no other warning
    with start_server(env_path=tmp_path / "b", port=port):
        logger.close()
        assert points(port, env) == every(5)


def test_what_could_not_be_sent_is_named(tmp_path: Path) -> None:
    with start_server(env_path=tmp_path) as server:
        logger = logger_of(server.port, timeout=0.2)
        log(logger, 0)
        flush(logger)
        logger.add(m1=1.0)
        with stopped(server), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            logger.log(1)
            logger.close()
    (said,) = {str(each.message) for each in caught if "could not" in str(each.message)}
    assert said.startswith("1 window could not be sent ('p1'): http://localhost:")


def test_a_server_that_is_gone_at_the_end_is_told(tmp_path: Path) -> None:
    with start_server(env_path=tmp_path) as server:
        sink = ResendingSink(VisdomSink(port=server.port, retries=0))
        window = Window("w", None, "text", (Trace("t", "text"),))
        sink.show([window])
        sink.flush()
    with pytest.raises(ServerError, match=r"nobody listens.*; it may have lost the windows"):
        sink.close()


def test_a_window_that_cannot_be_drawn_leaves_the_others(visdom_server: Server, env: str) -> None:
    told: list[str] = []
    sink = ResendingSink(VisdomSink(port=visdom_server.port, env=env), tell=told.append)
    good = Window("good", None, "line", (Trace("t", [1.0], [0.0]),))
    bad = Window("bad", None, "line", (Trace("t", "text"),))
    for _ in range(2):
        sink.show([bad, good])
        sink.flush()
    sink.close()
    assert points(visdom_server.port, env) == {"good": 1}
    assert len(told) == 1
    assert "'bad'" in told[0]


# ---------------------------------------------------------------------- a server that comes back


@pytest.mark.parametrize("stage", ["between logs", "before close", "while nothing is logged"])
def test_a_restarted_server_gets_every_window(
    tmp_path: Path, env: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_server(env_path=tmp_path / "a") as server:
        port = server.port
        logger = logger_of(port, env=env)
        log(logger, 0)
        flush(logger)
        killed(server)
    expected = every(1)
    with start_server(env_path=tmp_path / "b", port=port):
        if stage == "between logs":
            logger.add(m0=1.0)
            logger.log(1)
            expected["p0"] = 2
        elif stage == "while nothing is logged":
            monkeypatch.setattr(resending, "_LOOK_SECONDS", 0.05)
            logger.show()
            until(lambda: points(port, env) == expected)
        logger.close()
        assert points(port, env) == expected


def test_a_server_that_comes_back_with_an_older_state_gets_every_window(
    tmp_path: Path, env: str
) -> None:
    with start_server(env_path=tmp_path) as server:
        port = server.port
        logger = logger_of(port, env=env)
        log(logger, 0)
        logger.save()
        log(logger, 1)
        flush(logger)
        killed(server)
    with start_server(env_path=tmp_path, port=port):
        assert points(port, env) == every(1)
        logger.close()
        assert points(port, env) == every(2)


@pytest.mark.filterwarnings("ignore:.*nobody listens")  # whether it is noticed is by chance
@pytest.mark.parametrize("removed", ["while it was away", "before it was killed"])
def test_a_server_that_comes_back_with_a_window_that_was_taken_off_is_rid_of_it(
    tmp_path: Path, env: str, removed: str
) -> None:
    with start_server(env_path=tmp_path / "a") as server:
        port = server.port
        logger = logger_of(port, 2, env=env)
        log(logger, 0, 2)
        logger.save()
        if removed == "before it was killed":
            logger.update_definition("p1", {"opts": {"win": "other"}})
            flush(logger)
            assert set(points(port, env)) == {"p0", "other"}
        killed(server)
    if removed == "while it was away":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logger.update_definition("p1", {"opts": {"win": "other"}})
    with start_server(env_path=tmp_path / "a", port=port):
        log(logger, 1, 2)
        logger.close()
        assert points(port, env) == {"p0": 2, "other": 2}


def test_another_program_that_draws_the_same_windows_is_let(
    visdom_server: Server, env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for a server that was restarted."""
    monkeypatch.setattr(resending, "_LOOK_SECONDS", 0.01)
    port = visdom_server.port
    first, second = logger_of(port, env=env), logger_of(port, env=env)
    log(first, 0)
    flush(first)
    for x in range(3):
        log(second, x)
    second.close()
    tries = sender_of(first).tries
    first.show()
    until(lambda: sender_of(first).tries > tries + 3)
    first.close()
    assert points(port, env) == every(3)


# ---------------------------------------------------------------------- the end


def test_an_interrupt_anywhere_leaves_no_window_behind(visdom_server: Server, env: str) -> None:
    logger, chance, interrupts = logger_of(visdom_server.port, env=env), random.Random(7), 0  # noqa: S311

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for x in range(60):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-4, 2e-3))
                while True:
                    log(logger, x)
            except KeyboardInterrupt:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    logger.close()
    assert interrupts == 60
    held = {window.win: len(window.traces[0].y) for window in logger.windows()}
    assert points(visdom_server.port, env) == held


def test_a_close_that_was_interrupted_takes_no_connection_from_the_thread(
    visdom_server: Server, env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[VisdomSink] = []
    monkeypatch.setattr(VisdomSink, "close", lambda sink: closed.append(sink))
    logger = logger_of(visdom_server.port, env=env)
    log(logger, 0)
    with monkeypatch.context() as patch:
        patch.setattr(resending, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            logger.close()
    assert closed == []
    log(logger, 1)
    logger.close()
    assert len(closed) == 1
    assert points(visdom_server.port, env) == every(2)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_close_that_was_interrupted_is_made_good_at_the_end(
    visdom_server: Server, env: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(visdom_server.port), env],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert points(visdom_server.port, env) == {"loss": 2}


INTERRUPTED = """
import sys
from contextlib import suppress
from flexrec.replay import get_preset_logger
from flexrec.replay.sinks import resending
logger = get_preset_logger("loss", port=int(sys.argv[1]), env=sys.argv[2])
for x in range(2):
    logger.add(train_loss=x)
    logger.log(x)
wait = resending._wait
def interrupted(*_):
    raise KeyboardInterrupt
resending._wait = interrupted
with suppress(KeyboardInterrupt):
    logger.close()
resending._wait = wait
"""

UNCLOSED = """
import sys
from flexrec.replay import get_preset_logger
logger = get_preset_logger("loss", port=int(sys.argv[1]), env=sys.argv[2])
for x in range(50):
    logger.add(train_loss=x)
    logger.log(x)
"""


def test_a_program_that_ends_without_close_sends_the_rest(visdom_server: Server, env: str) -> None:
    command = [sys.executable, "-c", UNCLOSED, str(visdom_server.port), env]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert points(visdom_server.port, env) == {"loss": 50}


def test_a_logger_that_nobody_holds_sends_the_rest_and_ends_its_thread(
    visdom_server: Server, env: str
) -> None:
    def train() -> None:
        log(logger_of(visdom_server.port, env=env), 0)

    train()
    assert points(visdom_server.port, env) == every(1)
    until(lambda: not [t for t in threading.enumerate() if t.name == "flexrec-visdom"])


def test_a_definition_that_changes_takes_stale_windows_away(
    visdom_server: Server, env: str
) -> None:
    with logger_of(visdom_server.port, 2, env=env) as logger:
        log(logger, 0, 2)
        logger.update_definition("m0", {"target": "p1"})
        logger.update_definition("p1", {"opts": {"win": "both"}})
        log(logger, 1, 2)
    assert set(points(visdom_server.port, env)) == {"both"}


# ---------------------------------------------------------------------- other processes


def in_child(logger: FlexLogger) -> None:
    logger.add(m0=5.0)
    logger.log(5)
    logger.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_logger_in_another_process_has_a_connection_of_its_own(
    visdom_server: Server, env: str, method: str
) -> None:
    logger = logger_of(visdom_server.port, env=env)
    log(logger, 0)
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=in_child, args=(logger,))
    process.start()
    for x in range(1, 20):  # at the same time
        log(logger, x)
    process.join()
    assert process.exitcode == 0
    flush(logger)
    log(logger, 20)
    logger.close()
    assert points(visdom_server.port, env) == every(21)


def test_a_copy_starts_empty_with_the_same_definitions(visdom_server: Server, env: str) -> None:
    logger = logger_of(visdom_server.port, env=env, uid="u")
    log(logger, 0)
    for made in (copy.deepcopy(logger), pickle.loads(pickle.dumps(logger))):  # noqa: S301
        assert made.windows() == []
        log(made, 7)
        assert [window.win for window in made.windows()] == [f"u.p{i}" for i in range(FEW)]
        made.close()
    logger.close()


def test_colours_are_those_of_a_replay_whatever_was_shown_before() -> None:
    drawn: dict[str, Window] = {}

    class Noting(VisdomSink):
        def probe(self) -> None:
            """Find a server."""

        def holds(self, window: Window) -> bool:
            return window.win in drawn

        def draw(self, window: Window) -> None:
            drawn[window.win] = window

    def line(win: str, *names: str) -> Window:
        return Window(win, None, "line", tuple(Trace(name, [1.0], [0.0]) for name in names))

    late = overlay({"a": [], "b": [line("only b", "x"), line("loss", "train", "val")]})
    both = overlay(
        {
            "a": [line("loss", "train", "val")],
            "b": [line("only b", "x"), line("loss", "train", "val")],
        }
    )
    sink = ResendingSink(Noting())
    for windows in (late, both):
        sink.show(windows)
        sink.flush()
        painted = Palette().paint(windows)
        assert [drawn[window.win].opts for window in painted] == [each.opts for each in painted]
    sink.close()
