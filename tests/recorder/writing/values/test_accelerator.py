"""What waits on an accelerator until it is written. CPU tensors stand in for those there, but in
the last test, which needs a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flexrec.recorder import Recording
from flexrec.recorder.events import is_tensor, normalise
from flexrec.recorder.writing.values import accelerator, encoders
from flexrec.recorder.writing.values.encoders import NumberEncoder, Queued, pack_record
from support.event_cases import same
from support.recorders import recorder

KINDS = (torch.float32, torch.int64, torch.bfloat16)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor is taken for one on an accelerator, by the slow way."""
    monkeypatch.setattr(accelerator, "is_elsewhere", is_tensor)


@pytest.mark.usefixtures("elsewhere")
def test_a_tensor_is_recorded_as_it_was_at_add(tmp_path: Path) -> None:
    loss, output = torch.tensor(1.5), torch.arange(6.0).reshape(2, 3)
    half = torch.ones(2, 3, dtype=torch.bfloat16)
    with recorder(tmp_path / "run.h5") as rec:
        rec.add({"n": 0.5, "loss": loss, "pair": (output, half), "count": torch.tensor(3)})
        for tensor in (loss, output, half):
            tensor.zero_()
    with Recording(tmp_path / "run.h5") as run:
        assert run["n"].value.tolist() == [0.5]
        assert run["loss"].value.tolist() == [1.5]
        assert run["count"].value.tolist() == [3.0]
        ((first, second),) = run["pair"].value
    assert np.array_equal(first, np.arange(6.0, dtype="f4").reshape(2, 3))
    assert second.dtype == np.float32
    assert np.array_equal(second, np.ones((2, 3)))


@pytest.mark.usefixtures("elsewhere")
def test_arrays_are_fetched_together_and_find_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "_LARGE", 200)
    given = [torch.arange(float(n)).to(dtype) for n in (3, 0, 64, 7) for dtype in KINDS]
    with recorder(tmp_path / "run.h5") as rec:
        for i, tensor in enumerate(given):
            rec.add({"x": tensor, "here": np.full(2, i), "both": (tensor.reshape(-1, 1), "text")})
    with Recording(tmp_path / "run.h5") as run:
        x, both, here = run["x"].value, run["both"].value, run["here"].value
    for i, tensor in enumerate(given):
        wanted = normalise("x", tensor)
        assert same(x[i], wanted)
        assert same(both[i], (np.asarray(wanted).reshape(-1, 1), "text"))
        assert here[i].tolist() == [i, i]


def test_numbers_wait_in_one_tensor_a_kind(tmp_path: Path, elsewhere: None) -> None:
    loss, count = torch.tensor(1.5), torch.tensor(7)
    with recorder(tmp_path / "run.h5") as rec:
        for _ in range(2):
            rec._queue._encoders.clear()
            rec.add({"here": 0.25, "loss": loss, "count": count})
            loss.add_(1.0)
        events: list[Queued] = []
        rec._queue.take(events)
        held = [event[4] for event in events]
        assert [(slots, tensor.dtype) for one in held if one for slots, tensor in one.waiting] == [
            ([1], torch.float32),
            ([2], torch.int64),
        ] * 2
        rec._queue._events.extend(events)
    with Recording(tmp_path / "run.h5") as run:
        assert run["here"].value.tolist() == [0.25, 0.25]
        assert run["loss"].value.tolist() == [1.5, 2.5]
        assert run["count"].value.tolist() == [7.0, 7.0]


def test_known_keys_wait_without_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device reading a value raises: nothing does."""
    monkeypatch.setattr(encoders, "is_elsewhere", lambda value: getattr(value, "is_meta", False))
    with torch.device("meta"):
        values = {"a": torch.empty(()), "b": 0.5, "c": torch.empty((), dtype=torch.int64)}
    encoder = NumberEncoder(0, values.values())
    event = encoder.encode(4, 1.5, values.values())
    assert event is not None
    assert event[:4] == (0, pack_record(4, 1.5, (0.0, 0.5, 0.0)), b"", 0)
    assert event[4] is not None
    assert [(slots, tensor.dtype) for slots, tensor in event[4].waiting] == [
        ([0], torch.float32),
        ([2], torch.int64),
    ]
    values["a"] = torch.empty(1, device="meta")
    assert encoder.encode(4, 1.5, values.values()) is None


@pytest.mark.parametrize("tensor", [torch.tensor(0.5), torch.empty((), device="meta"), 0.5])
def test_what_is_not_on_an_accelerator_is_taken_at_once(tensor: Any) -> None:
    assert not accelerator.is_elsewhere(tensor)


@pytest.mark.parametrize("is_initialized", [False, True])
def test_tensors_are_asked_where_they_are_once_any_may_be_elsewhere(
    monkeypatch: pytest.MonkeyPatch, is_initialized: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: is_initialized)
    here, there = [torch.tensor(0.5), torch.tensor(3)], torch.empty((), device="meta")
    accelerator.tensor_reader.cache_clear()
    try:
        read = NumberEncoder(0, here).read
        assert read is not None
        assert read(here) == [0.5, 3]
        # To read what the meta device has not raises by itself; that it was not tried is the word.
        with pytest.raises(
            TypeError if is_initialized else (RuntimeError, NotImplementedError),
            match="wait" if is_initialized else "meta",
        ):
            read([*here, there])
    finally:
        accelerator.tensor_reader.cache_clear()


@pytest.mark.gpu
def test_a_training_loop_on_a_gpu_is_recorded_without_waiting_for_it(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(32, 8).cuda(), torch.randint(4, (32,)).cuda()
    losses = []
    with recorder(tmp_path / "run.h5") as rec:
        rec.watch(model)
        for step in range(5):
            optimizer.zero_grad()
            torch.cuda.set_sync_debug_mode("error" if step else "default")
            try:
                output = model(x)
                loss = nn.functional.cross_entropy(output, y)
                loss.backward()
                optimizer.step()
                rec.add({"loss": loss, "count": 3})
                rec.add(alone=loss)
                rec.add(pair=(output, y))
                rec.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
            losses.append(loss.item())
            output.detach().zero_()  # what was added stays as it was
    with Recording(tmp_path / "run.h5") as run:
        assert run["loss"].value.tolist() == run["alone"].value.tolist() == losses
        assert all(np.abs(pair[0]).max() > 0 for pair in run["pair"].value)
        assert len(run["0/weights/mean"]) == 5
