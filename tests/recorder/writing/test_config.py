"""config: what it takes, and how it changes while the run goes on."""

import argparse
import copy
import dataclasses
import enum
import json
import os
import pickle
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import h5py
import numpy as np
import pytest

from flexrec.recorder import InputError, Recorder, Recording, RecordingError, merge_recordings
from flexrec.recorder.writing.config import as_json


class Kind(enum.Enum):
    """An enum of no values that JSON has."""

    ADAM = object()


class Word(enum.StrEnum):
    """An enum of texts."""

    SGD = "sgd"


class Parts(enum.Flag):
    """An enum that may be empty."""

    A = 1
    B = 2

    def __str__(self) -> str:  # Python 3.11 and 3.12 differ
        return f"Parts({self.value})"


@dataclasses.dataclass
class Optimizer:
    """A dataclass in a dataclass."""

    lr: float = 0.1
    kind: Kind = Kind.ADAM


@dataclasses.dataclass
class Settings:
    """A dataclass."""

    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    out: Path = Path("a/b")


class OmegaLike(Mapping[str, Any]):
    """A mapping that is no dict, as OmegaConf's DictConfig."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def __getitem__(self, key: str) -> Any:
        if self._data[key] == "???":
            raise LookupError(f"Missing mandatory value: {key}")
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)


class ToDict:
    """What has a way of its own to become plain data."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"hidden": 3}


TAKEN: list[tuple[Any, Any]] = [
    (argparse.Namespace(lr=0.1, out=Path("x")), {"lr": 0.1, "out": "x"}),
    (SimpleNamespace(a=1), {"a": 1}),
    (Settings(), {"optimizer": {"lr": 0.1, "kind": "ADAM"}, "out": "a/b"}),
    ({"kind": Kind.ADAM, "word": Word.SGD}, {"kind": "ADAM", "word": "sgd"}),
    (OmegaLike({"a": OmegaLike({"b": (1, 2)})}), {"a": {"b": [1, 2]}}),
    (ToDict(), {"hidden": 3}),
    ({"s": {3, 1}, "r": range(2)}, {"s": [1, 3], "r": [0, 1]}),
    ({"n": np.float32(0.5), "f": Path}, {"n": 0.5, "f": "pathlib.Path"}),
    ({"g": len}, {"g": "builtins.len"}),
    ({"none": Parts(0), "both": Parts(3)}, {"none": "Parts(0)", "both": "A|B"}),
    ({"l": np.longdouble(0.5)}, {"l": 0.5}),
    ({"d": np.datetime64(7, "ns")}, {"d": "1970-01-01T00:00:00.000000007"}),
    ({"d": np.array([[7, "NaT"]], "m8[ns]")}, {"d": [["7 nanoseconds", None]]}),
    ([1, 2], [1, 2]),
    (None, None),
]


@pytest.mark.parametrize(("given", "expected"), TAKEN)
def test_what_scripts_have_is_taken(tmp_path: Path, given: Any, expected: Any) -> None:
    path = tmp_path / "run.h5"
    Recorder(path, config=given, facts=False).close()
    with Recording(path) as run:
        assert run.config == expected


def test_what_was_taken_can_be_read_and_changed(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, config=Settings(), facts=False) as rec:
        assert rec.config["optimizer"]["kind"] == "ADAM"
        rec.config["out"] = None
    assert config(path) == {"optimizer": {"lr": 0.1, "kind": "ADAM"}, "out": None}


def test_what_torch_has_is_taken() -> None:
    torch = pytest.importorskip("torch")
    given = {"d": torch.device("cpu"), "t": torch.float32, "n": torch.tensor(2)}
    assert json.loads(as_json("config", given)) == {"d": "cpu", "t": "torch.float32", "n": 2}
    assert json.loads(as_json("config", {"t": np.dtype("f4")})) == {"t": "float32"}


def test_a_set_of_several_kinds_has_an_order() -> None:
    assert json.loads(as_json("config", {"a": {2, "x", 1}})) == {"a": ["x", 1, 2]}


def _within_itself() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["again"] = {"and again": argparse.Namespace(inner=inner)}
    return {"a": inner}


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


REFUSED = [
    (_within_itself(), r"config\['a'\].*\['inner'\] must be plain .* it is a part of itself"),
    (_nested(100_000), "config must be plain JSON data: it is nested too deeply"),
    ({"a": {"b": b"bytes"}}, r"config\['a'\]\['b'\] must be plain JSON data: JSON has no bytes"),
    (argparse.Namespace(a=object()), r"config\['a'\] must be plain JSON data: JSON has no object"),
    (OmegaLike({"lr": "???"}), "config must be plain JSON data: .*Missing mandatory value: lr"),
    ({"a": {1: 2, "1": 3}}, r"config must be plain JSON data: two of its keys become '1' in JSON"),
    ({"a": np.zeros(3000)}, "an array of 3,000 elements is no setting"),
    ({"a": range(10**9)}, "a range of 1,000,000,000 elements is no setting"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_json_has_not_is_refused_and_named(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        Recorder(tmp_path / "run.h5", config=given)
    assert list(tmp_path.iterdir()) == []


def config(path: Path) -> Any:
    with Recording(path) as run:
        return run.config


def test_what_yaml_and_numpy_give_may_be_settings(tmp_path: Path) -> None:
    given = {
        "day": date(2026, 11, 30),
        "start": datetime(2026, 11, 30, 8, 5),
        "limit": timedelta(hours=2),
        "rate": Decimal("0.10"),
        "share": Fraction(1, 3),
        "id": UUID(int=5),
        "weights": np.arange(3, dtype=np.float32),
    }
    too_large = pytest.raises(RecordingError, match=r"\['large'\].*2,000 elements is no setting")
    with Recorder(tmp_path / "run.h5", config=given, facts=False) as rec, too_large:
        rec.config.update(large=np.zeros((2, 1000)))
    assert config(tmp_path / "run.h5") == {
        "day": "2026-11-30",
        "start": "2026-11-30T08:05:00",
        "limit": "2:00:00",
        "rate": "0.10",
        "share": "1/3",
        "id": "00000000-0000-0000-0000-000000000005",
        "weights": [0.0, 1.0, 2.0],
    }


def test_what_is_set_later_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, config={"lr": 0.1, "é": [1]}, facts=False, flush_seconds=60) as rec:
        assert dict(rec.config) == {"lr": 0.1, "é": (1,)}
        rec.config.update(argparse.Namespace(batch=64), out=Path("x"))
        rec.flush()  # with no event
        assert config(path) == {"lr": 0.1, "é": [1], "batch": 64, "out": "x"}
        rec.add(a=1)
        rec.config["lr"] = 0.2
        del rec.config["out"]
        rec.add(a=2)
        rec.flush()
        assert config(path) == {"lr": 0.2, "é": [1], "batch": 64}
        rec.config["late"] = True
    expected = {"lr": 0.2, "é": [1], "batch": 64, "late": True}
    assert config(path) == expected
    with h5py.File(path) as file:
        assert json.loads(bytes(file["config"][:])) == expected
    with Recorder(path, mode="resume", facts=False) as rec:
        assert rec.config["late"] is True
        rec.config["late"] = None
        rec.add(a=3)
    merge_recordings([path], tmp_path / "merged.h5")
    assert config(tmp_path / "merged.h5") == {**expected, "late": None}
    with Recording(path) as run:
        assert run["a"].value.tolist() == [1, 2, 3]


def test_a_config_that_was_set_survives_a_kill(tmp_path: Path) -> None:
    path, copy = tmp_path / "run.h5", tmp_path / "copy.h5"
    with Recorder(path, facts=False, flush_seconds=60) as rec:
        rec.config.update({"lr": 0.1})
        rec.flush()
        copy.write_bytes(path.read_bytes())
    with Recorder(copy, mode="resume", facts=False) as rec:
        assert rec.config["lr"] == 0.1
    assert config(copy) == {"lr": 0.1}


def test_a_wrong_change_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    rec = Recorder(path, config={"net": {"layers": [1, 2]}}, facts=False)
    with pytest.raises(RecordingError, match=r"config\['a'\] must be plain JSON data"):
        rec.config.update(a=object())
    with pytest.raises(TypeError, match="does not support item assignment"):
        rec.config["net"]["layers"] = 3
    with pytest.raises(AttributeError, match=r"write rec.config.update\("):
        rec.config = {"a": 1}  # type: ignore[misc, assignment]
    for wrong in (5, None, "ab", [1]):
        with pytest.raises(InputError, match="takes a mapping, pairs or keywords, got"):
            rec.config.update(wrong)
    rec.close()
    with pytest.raises(RecordingError, match="is closed"):
        rec.config["a"] = 1
    assert config(path) == {"net": {"layers": [1, 2]}}


def test_a_config_that_is_no_mapping_has_no_names(tmp_path: Path) -> None:
    with (
        Recorder(tmp_path / "run.h5", config=[1], facts=False) as rec,
        pytest.raises(InputError, match="is not a mapping"),
    ):
        rec.config.update(a=1)


def test_a_lone_surrogate_loses_nothing(tmp_path: Path) -> None:
    path, copy = tmp_path / "run.h5", tmp_path / "copy.h5"
    folder = os.fsdecode(b"/data/caf\xe9")  # a path that is not UTF-8
    with Recorder(path, config={"data": Path(folder)}, flush_seconds=60) as rec:
        rec.add(a=1)
        rec.config.update({"out": Path(folder), folder: 1})
        rec.describe({folder: {}})
        rec.add(a=2)
        rec.flush()
        copy.write_bytes(path.read_bytes())
    with Recorder(copy, mode="resume") as rec:
        assert rec.config["out"] == folder
    for each in (path, copy):
        with Recording(each) as run:
            assert run["a"].value.tolist() == [1, 2]
            assert run.config == {"data": folder, "out": folder, folder: 1}
            assert run.facts is not None
            assert run.facts["models"] == {folder: {}}


def test_a_config_that_is_written_can_be_read_in_deep_calls(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False) as rec:
        rec.add(a=1)
        with pytest.raises(RecordingError, match="it is nested too deeply"):
            rec.config.update(_nested(201))
        rec.config.update(a=_nested(198))
        rec.flush()
        live = _called_deeply(lambda: config(path), 300)
    assert live == {"a": _nested(198)} == _called_deeply(lambda: config(path), 300)


def _called_deeply(call: Callable[[], Any], depth: int) -> Any:
    return _called_deeply(call, depth - 1) if depth else call()


def test_changes_that_are_in_the_file_take_no_memory(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", facts=False, flush_seconds=60) as rec:
        tracemalloc.start()
        try:
            for i in range(30):
                rec.config.update(text="x" * 100_000, i=i)
                rec.flush()
            assert tracemalloc.get_traced_memory()[0] < 1_000_000
        finally:
            tracemalloc.stop()
        assert rec.config["i"] == 29


def test_a_setting_with_a_number_for_its_name_may_be_set_again(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, config={1: "a"}, facts=False) as rec:
        rec.config.update({1: "b"})
        rec.config[1] = "c"  # type: ignore[index]
        assert rec.config.as_dict() == {"1": "c"}
    assert config(path) == {"1": "c"}


def test_a_copy_of_a_config_is_a_dict_that_records_nothing(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", config={"a": {"b": [1]}}, facts=False) as rec:
        pickled = pickle.loads(pickle.dumps(rec.config))  # noqa: S301
        for copied in (copy.deepcopy(rec.config), pickled):
            assert copied == {"a": {"b": [1]}}
            copied["late"] = 1
    assert config(tmp_path / "run.h5") == {"a": {"b": [1]}}


def test_a_setting_that_is_written_as_an_attribute_is_not_lost_silently(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", config={"lr": 0.1}, facts=False) as rec:
        with pytest.raises(AttributeError, match=r"write rec\.config\.update\(lr=0\.2\)"):
            rec.config.lr = 0.2  # type: ignore[attr-defined]
        assert dict(rec.config) == {"lr": 0.1}
