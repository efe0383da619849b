"""Samples of the machine: what they are, where they lie, and what they must not disturb."""

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flexrec.recorder import MissingDependency, Recorder, Recording
from flexrec.recorder.maintenance.repair import verify
from flexrec.recorder.writing.surroundings.machine import Machine
from flexrec.recorder.writing.surroundings.monitor import Monitor
from flexrec.replay import play, preset
from flexrec.replay.diff.compare import diff
from flexrec.replay.player.player import count_unlogged

SAMPLE = {"cpu_percent": 50.0, "memory_percent": 25.0, "disk_read_bytes_per_second": 1e6}


class Turned:
    """A monitor of a recorder whose clock and machine are the test's."""

    def __init__(self, rec: Recorder, seconds: float = 10) -> None:
        self.now, self.values = 0.0, dict(SAMPLE)
        self.monitor = Monitor(rec._queue, self.read, seconds, lambda: self.now)
        self.monitor.start()

    def read(self) -> Mapping[str, float]:
        return self.values

    def pass_by(self, seconds: float) -> str | None:
        """Let time pass, and the writer come by."""
        self.now += seconds
        return self.monitor.tick()


def recorder(path: Path, **options: Any) -> Recorder:
    """A recorder that writes only when told to."""
    return Recorder(path, facts=False, flush_seconds=60, **options)


def test_samples_are_at_the_current_step_with_their_own_time(tmp_path: Path) -> None:
    with recorder(tmp_path / "run.h5") as rec:
        turned = Turned(rec)
        for seconds in (4, 4, 4, 9, 1):  # due after 10, and 10 later
            rec.add(loss=1.0)
            turned.pass_by(seconds)
            rec.step()
    with Recording(tmp_path / "run.h5") as run:
        assert run["system/cpu_percent"].step.tolist() == [2, 4]
        assert (run["system/cpu_percent"].time >= run["loss"].time[[2, 4]]).all()
        assert run["loss"].step.tolist() == [0, 1, 2, 3, 4]
        assert {key for key in run if key != "loss"} == {f"system/{name}" for name in SAMPLE}


def test_samples_after_the_last_step_do_not_make_it_longer(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with recorder(path) as rec:
        turned = Turned(rec)
        turned.pass_by(11)
        rec.flush()
        with Recording(path) as run:
            assert run.state.endswith("no step was recorded")
        rec.add(loss=1.0)
        rec.step()
        turned.pass_by(11)
        rec.flush()
        assert verify(path).last_step == 0
        with Recording(path) as run:
            assert run["system/cpu_percent"].step.tolist() == [0, 1]
            assert run.state.endswith("whole up to step 0")


def test_a_machine_that_cannot_be_read_is_told_once_and_recording_goes_on(tmp_path: Path) -> None:
    with recorder(tmp_path / "run.h5") as rec:
        turned = Turned(rec)
        turned.values = None  # type: ignore[assignment]
        assert str(turned.pass_by(11)).startswith("the machine is no longer monitored: Attribute")
        assert turned.pass_by(11) is None
        rec.add(loss=1.0)
    assert list(Recording(tmp_path / "run.h5")) == ["loss"]


def test_a_recorder_samples_in_its_writers_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled, names = threading.Event(), set[str]()

    def read() -> dict[str, float]:
        names.add(threading.current_thread().name)
        sampled.set()
        return {"cpu_percent": 1.0}

    monkeypatch.setattr(sys.modules["flexrec.recorder.recorder"], "machine_beside", lambda _: read)
    with Recorder(tmp_path / "run.h5", monitor=0.01, flush_seconds=60) as rec:
        assert sampled.wait(60)
        rec.add(loss=1.0)
    assert names == {"flexrec"}
    with Recording(tmp_path / "run.h5") as run:
        assert (run["system/cpu_percent"].value == 1.0).all()


def test_resuming_continues_at_the_step_of_the_training(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with recorder(path) as rec:
        turned = Turned(rec)
        for _ in range(3):
            rec.add(loss=1.0)
            rec.step()
        turned.pass_by(11)  # at step 3, which the training has not begun
        state = rec.state_dict()
    assert state["amid"] == []
    assert state["step"] == 3
    with recorder(path, mode="resume") as rec:
        assert rec.current_step == 3
        rec.add(loss=2.0)
    with recorder(path, mode="resume", at_step=2) as rec:
        rec.add(loss=3.0)
        rec.load_state_dict(state)
        assert rec.current_step == 3
        rec.add(loss=4.0)
    with Recording(path) as run:
        assert run["loss"].step.tolist() == [0, 1, 2, 3]
        assert run["loss"].value.tolist() == [1, 1, 1, 4]


@pytest.mark.filterwarnings("default:.* of the same keys are all at step:RuntimeWarning")
def test_a_sample_does_not_hide_that_a_run_makes_one_point(tmp_path: Path) -> None:
    rec = recorder(tmp_path / "run.h5")
    for _ in range(60):
        rec.add(loss=1.0)
    rec._queue.record(5, rec._queue.now(), {"system/cpu_percent": 1.0})
    with pytest.warns(RuntimeWarning, match="60 adds of the same keys are all at step 0"):
        rec.close()
    with recorder(tmp_path / "other.h5") as rec:  # nor is it taken for one of the training
        turned = Turned(rec)
        for _ in range(60):
            turned.pass_by(11)
        rec.add(loss=1.0)


def test_patterns_of_reduce_leave_samples_alone(tmp_path: Path) -> None:
    with recorder(tmp_path / "run.h5", reduce={"*": "MSEMeter"}) as rec:
        Turned(rec).pass_by(11)
        rec.add(mse=([1.0, 2.0][0], 2.0))
    with Recording(tmp_path / "run.h5") as run:
        assert run["system/cpu_percent"].value.tolist() == [50.0]


def test_replay_draws_a_plot_for_each_unit_and_does_not_count_what_is_after_the_last_log(
    tmp_path: Path,
) -> None:
    with recorder(tmp_path / "run.h5") as rec:
        turned = Turned(rec)
        rec.add(train_loss=1.0)
        turned.pass_by(11)
        rec.log(0)
        turned.pass_by(11)
    with Recording(tmp_path / "run.h5") as run:
        windows = {window.win: window for window in play(run)}
        assert list(windows) == ["loss", "system/percent", "system/bytes_per_second"]
        traces = [(t.name, t.y.tolist()) for t in windows["system/percent"].traces]
        assert traces == [("cpu", [50.0]), ("memory", [25.0])]
        assert not count_unlogged(run, preset("layers"))
        assert not count_unlogged(run, preset("auto"))


def test_diff_leaves_samples_out(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        with recorder(tmp_path / f"{name}.h5") as rec:
            rec.add(loss=1.0)
            rec._queue.record(0, rec._queue.now(), {"system/cpu_percent": value})
    assert diff(tmp_path / "a.h5", tmp_path / "b.h5").equal


def test_the_machine_is_read(tmp_path: Path) -> None:
    found = Machine(tmp_path / "run.h5").read()
    assert found["process_memory_bytes"] > 1 << 20
    assert {"cpu_percent", "process_cpu_percent", "disk_percent"} <= found.keys()
    for name, value in found.items():
        assert name.endswith(("percent", "bytes", "per_second", "watts", "celsius")), name
        assert value >= 0


def test_rates_are_since_the_last_reading(tmp_path: Path) -> None:
    sent = iter([100, 50])
    times = iter([0.0] * 4 + [2.0] * 4 + [3.0] * 4)
    found = Machine(tmp_path / "run.h5", lambda: next(times))
    found._psutil = SimpleNamespace(
        net_io_counters=lambda: SimpleNamespace(bytes_sent=next(sent), bytes_recv=0)
    )
    found._counts = {"network_sent_bytes_per_second": (60, 0.0)}
    rates = dict(found._network())
    assert rates["network_sent_bytes_per_second"] == 20.0
    assert "network_sent_bytes_per_second" not in dict(found._network())  # a counter that fell


def test_gpus_are_read_with_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def no_power(_: int) -> int:
        raise NVMLError

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetUtilizationRates=lambda gpu: SimpleNamespace(gpu=10 * gpu),
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(used=1, total=4),
        nvmlDeviceGetPowerUsage=no_power,
        nvmlDeviceGetTemperature=lambda _, __: 40,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = Machine(tmp_path / "run.h5").read()
    gpus = {name: value for name, value in found.items() if name.startswith("gpu")}
    each = {"memory_percent": 25, "memory_bytes": 1, "celsius": 40}
    assert gpus == {
        "gpu0_percent": 0,
        "gpu1_percent": 10,
        **{f"gpu{n}_{name}": value for n in (0, 1) for name, value in each.items()},
    }


def lost(*_: Any) -> Any:
    """Fail as no library says that it does."""
    raise OSError("no device")


@pytest.mark.parametrize("where", ["nvmlInit", "nvmlDeviceGetCount"])
def test_a_broken_driver_is_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    calls = {"nvmlInit": lambda: None, "nvmlDeviceGetCount": lambda: 2}
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(**{**calls, where: lost}))
    found = Machine(tmp_path / "run.h5").read()
    assert "memory_percent" in found
    assert not any(name.startswith("gpu") for name in found)


def test_a_gpu_that_is_lost_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {1}

    def handle(number: int) -> int:
        return lost() if number in missing else number

    def power(gpu: int) -> int:
        return lost() if gpu in missing else 5000

    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 3,
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetPowerUsage=power,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = Machine(tmp_path / "run.h5")

    def watts() -> set[str]:
        return {name for name in found.read() if name.endswith("_watts")}

    assert watts() == {"gpu0_watts", "gpu2_watts"}
    missing.add(0)
    assert watts() == {"gpu2_watts"}


def test_without_psutil_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingDependency, match="monitor= needs psutil, which is not installed"):
        Recorder(tmp_path / "run.h5", monitor=10)
    assert not (tmp_path / "run.h5").exists()
    with pytest.raises(ValueError, match="monitor must be a number above 0, got 0"):
        Recorder(tmp_path / "run.h5", monitor=0)


@pytest.mark.parametrize("seconds", [1e-9, 0.0099, float("inf")])
def test_the_time_between_samples_is_one_that_can_be(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"monitor must be a number of seconds from 0\.01 on, got"):
        Recorder(tmp_path / "run.h5", monitor=seconds)
    assert not (tmp_path / "run.h5").exists()
