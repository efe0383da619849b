"""Arrays that come again in the same form take a short way into the buffer: it changes nothing."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flexrec.recorder import InputError, Recording, events
from flexrec.recorder.events import normalise
from support.event_cases import same
from support.recorders import recorder


def rounds(path: Path, values: list[Any], times: int = 3) -> list[Any]:
    """What comes back of values that were added again and again, in turn and in a row."""
    with recorder(path) as rec:
        for _ in range(times):
            for value in values:
                rec.add(key=value, loss=0.5)
        for value in values:
            for _ in range(times):
                rec.add(key=value, loss=0.5)
    with Recording(path) as run:
        found: list[Any] = list(run["key"].value)
    turns = len(values) * times
    repeated = [found[turns + i * times : turns + (i + 1) * times] for i in range(len(values))]
    for i, several in enumerate(repeated):
        assert all(same(several[0], other) for other in several)
        assert all(same(several[0], found[turn * len(values) + i]) for turn in range(times))
    return [several[0] for several in repeated]


wide = np.arange(24, dtype="f4").reshape(2, 3, 4)
VALUES: list[Any] = [
    wide,
    wide.T,
    wide[:, ::2, ::-1],
    np.asfortranarray(wide[0]),
    wide.astype(">f4"),
    wide.astype("g"),
    wide.astype("D"),
    np.zeros((0, 3)),
    np.array([True, False]),
    (wide, wide[0, 0].astype("i2")),
    [wide, 0.25],
    (wide, np.float32(0.25)),
    (wide, "text"),
    (wide, np.array(3)),
    np.ma.masked_array([1.0, 2.0], [False, False]),
]


def test_every_kind_of_array_comes_back_as_it_is_normalised(tmp_path: Path) -> None:
    for value, found in zip(VALUES, rounds(tmp_path / "run.h5", VALUES), strict=True):
        assert same(found, normalise("key", value)), value


def test_every_kind_of_tensor_comes_back_as_it_is_normalised(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    plain = torch.randn(4, 3)
    values = [
        plain,
        plain.T,
        torch.randn(4, 3, requires_grad=True) * 2,
        torch.nn.Parameter(torch.randn(2)),
        plain.bfloat16(),
        plain.half(),
        plain > 0,
        plain.to_sparse(),
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.randn(3, dtype=torch.complex64).conj().imag,
        (plain, torch.randint(0, 3, (4,))),
        (plain, torch.tensor(2)),
    ]
    for value, found in zip(values, rounds(tmp_path / "run.h5", values), strict=True):
        assert same(found, normalise("key", value)), value


@pytest.mark.parametrize("size", [10, 300_000, 3_000_000])
def test_what_is_changed_after_an_add_was_recorded_as_it_was(tmp_path: Path, size: int) -> None:
    path, changing = tmp_path / "run.h5", np.zeros(size, "f4")
    with recorder(path) as rec:
        for i in range(9):
            changing[:] = i
            rec.add(key=(changing, changing[:2]))
            if i % 4 == 3:
                rec.flush()  # memory of what was written is used again
    with Recording(path) as run:
        for i, (whole, start) in enumerate(run["key"].value):
            assert whole.shape == (size,)
            assert (whole == i).all()
            assert start.tolist() == [i, i]


@pytest.mark.parametrize("before", [0, 2])
def test_an_empty_array_with_an_absurd_axis_is_refused(tmp_path: Path, before: int) -> None:
    with recorder(tmp_path / "a.h5") as rec:
        for _ in range(before):
            rec.add(key=np.empty((0, 3)))
        with pytest.raises(InputError, match=r"'key': cannot record an array of shape \(0, 1125"):
            rec.add(key=np.empty((0, 1 << 50)))
        rec.add(key=np.empty((0, 1 << 40)))
        rec.add(after=1.0)
    with Recording(tmp_path / "a.h5") as run:
        assert len(run["key"]) == before + 1
        assert run["key"].value[-1].shape == (0, 1 << 40)
        assert run["after"].value.tolist() == [1.0]


def test_what_closing_cannot_read_stays_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "check_shape", lambda *_: None)
    rec = recorder(tmp_path / "a.h5")
    rec.add(first=1.0)
    rec.add(key=np.empty((0, 1 << 50)))
    rec.add(last=2.0)
    with pytest.warns(RuntimeWarning, match=r"a.h5.* 2 events at its end cannot be read"):
        rec.close()
    with Recording(tmp_path / "a.h5") as run:
        assert not run.complete
        assert list(run) == ["first", "key", "last"]


def test_large_arrays_of_zeros_can_be_read_back(tmp_path: Path) -> None:
    zeros = np.zeros(36 << 20)
    with recorder(tmp_path / "a.h5") as rec:
        rec.add(key=zeros)
    size = (tmp_path / "a.h5").stat().st_size
    assert zeros.nbytes / 40 < size < zeros.nbytes / 30
    with Recording(tmp_path / "a.h5") as run:
        (value,) = run["key"].value
        assert value.shape == zeros.shape
        assert not value.any()
    with h5py.File(tmp_path / "a.h5") as file:
        assert not file["series/key/value/data"][-1000:].any()


def test_a_key_that_is_reduced_stays_so(tmp_path: Path) -> None:
    with recorder(tmp_path / "a.h5", reduce={"key": "MSEMeter"}) as rec:
        for _ in range(3):
            rec.add(key=(wide, wide + 1), other=wide)
    with Recording(tmp_path / "a.h5") as run:
        assert [tuple(state) for state in run["key"].value] == [(24.0, 24.0)] * 3
        assert all(same(value, wide) for value in run["other"].value)


def test_a_resumed_recording_takes_the_same_short_way(tmp_path: Path) -> None:
    for _ in range(2):
        with recorder(tmp_path / "a.h5", mode="resume") as rec:
            for _ in range(2):
                rec.add(key=wide, loss=0.5)
    with Recording(tmp_path / "a.h5") as run:
        assert len(run["key"]) == len(run["loss"]) == 4
        assert run.kind("key") == "float32:3"
