"""Traces of unknown origin, and small ones made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flexrec
from flexrec.recorder import Recorder, RecordingError
from flexrec.recorder.files.names import ON_ACCELERATOR

ORDER: list[list[Any]] = [
    ["random", "step", "", 0, "", -1],
    ["weights", "net", "weight", 0, "", -1],
    ["inputs", "net", "", 0, "", 0],
    ["outputs", "net", "", 0, "", 1],
]


def written(
    path: Path, values: object, order: object = ORDER, attributes: object = None, steps: int = 3
) -> Path:
    """A recording of one trace, the values of each step the same."""
    with Recorder(path, mode="w", facts=False) as rec:
        rec.add({"trace/order": order if isinstance(order, str) else json.dumps(order)})
        if attributes is not None:
            text = attributes if isinstance(attributes, str) else json.dumps(attributes)
            rec.add({"trace/attributes": text})
        for _ in range(steps):
            rec.add({"trace/values": values})
            rec.step()
    return path


def test_a_model_of_one_layer(tmp_path: Path) -> None:
    a = written(tmp_path / "a.h5", np.array([1, 2, 3, 4]), attributes={"net": {"class": "Linear"}})
    b = written(tmp_path / "b.h5", np.array([1, 2, 3, 5]))
    first = flexrec.diff(a, b).first
    assert first is not None
    assert (first.stage, first.layer, first.kind) == ("forward", "net", "Linear")
    assert (first.a, first.b) == ("#4", "#5")


def test_layers_that_were_renamed(tmp_path: Path) -> None:
    a = written(tmp_path / "a.h5", np.array([1, 2, 3, 4]))
    order = [[*row[:1], row[1].replace("net", "new"), *row[2:]] for row in ORDER]
    b = written(tmp_path / "b.h5", np.array([1, 2, 3, 4]), order)
    assert not flexrec.diff(a, b).equal
    assert flexrec.diff(a, b, rename={"net": "new"}).equal


def test_random_states_alone_are_no_difference(tmp_path: Path) -> None:
    a = written(tmp_path / "a.h5", np.array([1, 2, 3, 4]))
    assert flexrec.diff(a, written(tmp_path / "b.h5", np.array([9, 2, 3, 4]))).equal


def test_an_event_of_another_kind_is_a_value(tmp_path: Path) -> None:
    order = [["surprise", "x", "", 0, "", -1]]
    a = written(tmp_path / "a.h5", np.array([1]), order)
    first = flexrec.diff(a, written(tmp_path / "b.h5", np.array([2]), order)).first
    assert first is not None
    assert (first.stage, first.cause) == ("metric", "x differs")


@pytest.mark.parametrize(
    ("values", "order"),
    [
        (np.array([1, 2, 3]), ORDER),
        (np.array([1.0, 2.0, 3.0, 4.0]), ORDER),
        (np.array([[1, 2, 3, 4]]), ORDER),
        ("text", ORDER),
        (7.0, ORDER),
        (np.array([1, 2, 3, 4]), "[["),
        (np.array([1, 2, 3, 4]), "[" * 100_000),
        (np.array([1, 2, 3, 4]), {"a": 1}),
        (np.array([1, 2, 3, 4]), [[1], ["x"] * 6, None, "abc"]),
    ],
)
def test_what_is_no_trace_is_an_error(tmp_path: Path, values: object, order: object) -> None:
    a = written(tmp_path / "a.h5", np.array([1, 2, 3, 4]))
    b = written(tmp_path / "b.h5", values, order)
    with pytest.raises(RecordingError, match=r"b\.h5: (its|the) trace"):
        flexrec.diff(a, b)


@pytest.mark.parametrize("attributes", [[], {"net": []}, {"net": {"class": {}}}, 7, {}])
def test_attributes_of_any_form_are_taken(tmp_path: Path, attributes: object) -> None:
    a = written(tmp_path / "a.h5", np.array([1, 2, 3, 4]), attributes=attributes)
    b = written(tmp_path / "b.h5", np.array([1, 2, 3, 5]), attributes={"net": {"p": "1"}})
    assert flexrec.diff(a, b).first is not None
    assert str(flexrec.diff(b, a))


def test_config_of_any_depth_is_compared(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(198):
        deep = {"a": deep}
    for name, config in (("a.h5", deep), ("b.h5", {"x": [1]})):
        with Recorder(tmp_path / name, facts=False, config=config) as rec:
            rec.add(x=1.0)
    found = flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5")
    assert found.equal
    assert len(found.config) == 2


def test_fingerprints_of_a_cpu_and_an_accelerator_are_not_compared(tmp_path: Path) -> None:
    a = written(tmp_path / "a.h5", np.array([1, 2, 3, 4]))
    b = written(tmp_path / "b.h5", np.array([1, *(ON_ACCELERATOR + n for n in (5, 6, 7))]))
    found = flexrec.diff(a, b)
    assert found.equal
    assert found.notes[0].endswith("the other of an accelerator: trace/values")
    c = written(tmp_path / "c.h5", np.array([1, 2, *(ON_ACCELERATOR + n for n in (6, 8))]))
    first = flexrec.diff(b, c).first
    assert first is not None
    assert first.key == "outputs of net"


def test_a_run_that_moves_to_an_accelerator_is_told(tmp_path: Path) -> None:
    """From its second step on, its fingerprints are not compared."""
    paths = tmp_path / "a.h5", tmp_path / "b.h5"
    for path, marks in zip(paths, ((0, 0), (0, ON_ACCELERATOR)), strict=True):
        with Recorder(path, facts=False) as rec:
            rec.add({"trace/order": json.dumps(ORDER)})
            for mark in marks:
                rec.add({"trace/values": np.array([1, *(mark + n for n in (2, 3, 4))])})
                rec.step()
    found = flexrec.diff(*paths)
    assert found.equal
    assert found.notes[0].endswith("the other of an accelerator: trace/values")


def test_tensors_that_are_copied_are_no_difference(tmp_path: Path) -> None:
    """The input of the layer has the same elements, but is another tensor."""
    a = written(tmp_path / "a.h5", np.array([1, 2, 3, 4]))
    order = [[*row[:5], 5 if row[0] == "outputs" else row[5]] for row in ORDER]
    assert flexrec.diff(a, written(tmp_path / "b.h5", np.array([1, 2, 3, 4]), order)).equal
    mark = ON_ACCELERATOR
    c = written(tmp_path / "c.h5", np.array([1, mark + 2, mark + 3, mark + 4]), order)
    assert flexrec.diff(a, c).equal


def test_the_same_values_in_another_order_are_a_difference(tmp_path: Path) -> None:
    order = [*ORDER, ["state", "net", "weight", 0, "", -1], ["state", "net", "bias", 0, "", -1]]
    a = written(tmp_path / "a.h5", np.array([1, 2, 3, 4, 5, 6]), order)
    b = written(tmp_path / "b.h5", np.array([1, 2, 3, 4, 6, 5]), [*order[:4], *order[:3:-1]])
    for runs in ((a, b), (b, a)):
        first = flexrec.diff(*runs).first
        assert first is not None
        assert (first.stage, first.layer) == ("optimizer", None)
        assert first.cause.endswith("all values are equal")


@pytest.mark.parametrize("kind", ["random", "attributes", "grad_norm"])
def test_what_explains_is_told_if_only_one_run_has_it(tmp_path: Path, kind: str) -> None:
    a = written(tmp_path / "a.h5", np.array([1, 2, 3, 4]))
    order = [*ORDER, [kind, "other", "", 0, "", -1]]
    b = written(tmp_path / "b.h5", np.array([1, 2, 3, 4, 5]), order)
    for runs in ((a, b), (b, a)):
        first = flexrec.diff(*runs).first
        assert first is not None
        assert (first.step, first.layer) in ((0, None), (0, "other"))


def test_losses_of_other_names_name_no_layer(tmp_path: Path) -> None:
    runs = [
        written(
            tmp_path / f"{name}.h5",
            np.array([1, 2, 3, 4, 5]),
            [*ORDER, ["loss", name, "", 0, "", -1]],
        )
        for name in ("loss_a", "loss_b")
    ]
    first = flexrec.diff(*runs).first
    assert first is not None
    assert (first.stage, first.layer, first.one_of) == ("loss", None, ())
