"""What is said of runs whose steps never come, and of what other tools' users write."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flexrec.recorder import InputError, Recorder
from support.recorders import recorder


def only_adds(rec: Recorder) -> None:
    for i in range(60):
        rec.add(loss=i)
        if i == 20:
            rec.flush()


def logs_without_a_place(rec: Recorder) -> None:
    for i in range(3):
        rec.add(loss=i)
        rec.log()


SAID = [
    (only_adds, r"60 adds of the same keys are all at step 0, and there is no log.*write rec.step"),
    (logs_without_a_place, r"all 3 logs are at x = 0.*write rec.log\(epoch\)"),
]


@pytest.mark.parametrize(("work", "message"), SAID)
def test_one_place_for_all_is_told_once(
    tmp_path: Path, work: Callable[[Recorder], None], message: str
) -> None:
    rec = recorder(tmp_path / "run.h5")
    work(rec)
    with pytest.warns(RuntimeWarning, match=message) as told:
        rec.close()
    assert len(told) == 1


def steps(rec: Recorder) -> None:
    for i in range(60):
        rec.add(loss=i)
        rec.step()


def adds_at_steps(rec: Recorder) -> None:
    for i in range(60):
        rec.add(loss=i, step=i)


def logs(rec: Recorder) -> None:
    for i in range(60):
        rec.add(loss=i)
    rec.log(0)


def many_keys(rec: Recorder) -> None:
    for i in range(60):
        rec.add({f"key{i}": i})


def steps_at_last(rec: Recorder) -> None:
    for i in range(60):
        rec.add(loss=i)
    rec.flush()
    rec.step()
    rec.add(loss=0)


@pytest.mark.parametrize("work", [steps, adds_at_steps, logs, many_keys, steps_at_last])
def test_other_runs_are_not_warned_of(tmp_path: Path, work: Callable[[Recorder], None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with recorder(tmp_path / "run.h5") as rec:
            work(rec)


HABITS: list[tuple[Callable[[Any], object], type[Exception], str]] = [
    (lambda rec: rec.add("loss", 1.0), InputError, 'write rec.add({"loss": value})'),
    (lambda rec: rec.add("acc", 1.0, 3), InputError, 'write rec.add({"acc": value})'),
    (lambda rec: rec.add("loss"), InputError, 'write add({"loss": value})'),
    (lambda rec: rec.add({"loss": 1}, 3), InputError, 'write rec.add({"loss": value})'),
    (lambda rec: rec.log({"loss": 1}), InputError, 'write add({"loss": value}), and then'),
    (lambda rec: rec.log({"loss": 1}, step=3), InputError, 'write add({"loss": value}), and then'),
    (lambda rec: rec.log("loss", 1.0), InputError, 'write add({"loss": value}), and then'),
    (lambda rec: rec.log(loss=1.0, acc=2.0), InputError, 'write add({"loss": value}), and then'),
    (lambda rec: rec.add_scalar("loss", 1, 3), AttributeError, "rec.add({tag: value}, step=n)"),
    (lambda rec: rec.add_histogram("w", 1), AttributeError, "rec.add({tag: tensor}, step=n)"),
    (lambda rec: rec.save(), AttributeError, "write rec.flush()"),
    (lambda rec: rec.log_metrics({}), AttributeError, "rec.add(values, step=n)"),
    (lambda rec: rec.finish(), AttributeError, "write rec.close()"),
    (lambda rec: rec.whatever, AttributeError, "has no attribute 'whatever'"),
    (lambda rec: setattr(rec, "step", 5), AttributeError, "write rec.step(5)"),
    (lambda rec: setattr(rec, "config", {}), AttributeError, "write rec.config.update("),
    (lambda rec: setattr(rec, "current_step", 5), AttributeError, "write rec.step(n)"),
    (lambda rec: setattr(rec, "path", "x"), AttributeError, "write Recorder(path)"),
]


@pytest.mark.parametrize(("habit", "kind", "message"), HABITS)
def test_other_habits_are_told_what_to_write(
    tmp_path: Path, habit: Callable[[Any], object], kind: type[Exception], message: str
) -> None:
    with recorder(tmp_path / "run.h5") as rec:
        with pytest.raises(kind, match=re.escape(message)):
            habit(rec)
        rec.step()
        assert rec.current_step == 1
        assert not hasattr(rec, "add_scalar")
