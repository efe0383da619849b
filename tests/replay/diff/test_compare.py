"""Two runs compared: what differs first, and what it is blamed on."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

import flexrec
from flexrec.recorder import DefinitionError, Recorder, Recording, RecordingError
from flexrec.recorder.files.names import ON_ACCELERATOR
from flexrec.replay.diff.compare import runs_of
from flexrec.replay.diff.windows import windows_of
from support.diff_cases import LAYERS, bent, record

AT = 5
GRADIENTS = tuple(f"{layer}/grad_weights/mean" for layer in LAYERS)
WEIGHTS = tuple(f"{layer}/weights/mean" for layer in LAYERS)

FAULTS = [  # what differs from step 5 on, and the stage, layer and one_of that are right
    (("middle/outputs/mean", "last/inputs/mean", "last/outputs/mean"), "forward", "middle", ()),
    (("first/inputs/mean", "first/outputs/mean"), "data", None, ()),
    (("middle/inputs/mean",), "forward", "the model", ("the model", "middle")),
    (("train_loss",), "loss", None, ("the loss", "the model")),
    (("last/grad_out/mean", "last/grad_in/mean"), "loss", None, ("the loss", "the model")),
    (
        ("middle/grad_in/mean", "first/grad_out/mean"),
        "backward",
        "middle",
        ("middle", "the model", "a layer in parallel"),
    ),
    (("first/grad_out/mean",), "backward", "the model", ("the model", "the loss")),
    (("middle/grad_weights/mean",), "backward", "middle", ()),
    (GRADIENTS, "backward", None, ()),
    (("lr", *WEIGHTS), "optimizer", None, ()),
    (WEIGHTS, "optimizer", None, ()),
    (("middle/weights/mean",), "optimizer", "middle", ()),
]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The run that is right."""
    return record(tmp_path / "a.h5")


@pytest.mark.parametrize(("changed", "stage", "layer", "one_of"), FAULTS)
def test_blame(
    whole: Path,
    tmp_path: Path,
    changed: tuple[str, ...],
    stage: str,
    layer: str | None,
    one_of: tuple[str, ...],
) -> None:
    found = flexrec.diff(whole, record(tmp_path / "b.h5", bent(AT, changed)))
    assert found.first is not None
    assert not found.equal
    assert (found.first.step, found.first.previous_step) == (AT, AT - 1)
    assert (found.first.stage, found.first.layer, found.first.one_of) == (stage, layer, one_of)
    assert set(found.keys.differ) == set(changed)


def test_equal_runs_are_equal(whole: Path, tmp_path: Path) -> None:
    found = flexrec.diff(whole, record(tmp_path / "b.h5"))
    assert found.equal
    assert found.first is None
    assert str(found) == "a.h5 and b.h5 are equal: 20 keys, 8 steps"


def test_what_it_prints(whole: Path, tmp_path: Path) -> None:
    changed = {"middle/outputs/mean": 1e-3, "last/outputs/mean": 1e-3}
    later = bent(AT + 1, {"train_loss": 1e-2})

    def bend(step: int, found: dict[str, float]) -> None:
        bent(AT, changed)(step, found)
        later(step, found)

    other = record(tmp_path / "b.h5", bend, config={"lr": {"base": 0.5}})
    assert str(flexrec.diff(whole, other)) == (
        "a.h5 and b.h5 differ\n"
        "facts     equal\n"
        "config    lr.base nothing -> 0.5\n"
        "first     step 5, forward, middle: outputs differ, "
        "its inputs are equal as far as recorded\n"
        "          outputs/mean 5.1 -> 5.101 (0.0002 relative)\n"
        "then      2 of 3 layers at step 5; train_loss beyond 1e-6 at 6, 1e-3 at 6\n"
        "keys      3 of 20 keys differ"
    )


def test_outputs_that_were_not_recorded_leave_several(tmp_path: Path) -> None:
    """The statistics that are taken by default have no outputs."""

    def only_inputs(step: int, found: dict[str, float]) -> None:
        for key in [key for key in found if "/outputs/" in key]:
            del found[key]

    def bend(step: int, found: dict[str, float]) -> None:
        only_inputs(step, found)
        bent(AT, ("last/inputs/mean", "train_loss"))(step, found)

    a, b = record(tmp_path / "a.h5", only_inputs), record(tmp_path / "b.h5", bend)
    first = flexrec.diff(a, b).first
    assert first is not None
    assert (first.stage, first.layer) == ("forward", "middle")
    assert first.one_of == ("middle", "the model", "a layer in parallel")


def test_inputs_that_were_not_recorded_leave_several(tmp_path: Path) -> None:
    """The layer, or what the code around it does to its inputs."""

    def only_outputs(step: int, found: dict[str, float]) -> None:
        for key in [key for key in found if "/inputs/" in key]:
            del found[key]

    def bend(step: int, found: dict[str, float]) -> None:
        only_outputs(step, found)
        bent(AT, ("middle/outputs/mean", "last/outputs/mean"))(step, found)

    a, b = record(tmp_path / "a.h5", only_outputs), record(tmp_path / "b.h5", bend)
    first = flexrec.diff(a, b).first
    assert first is not None
    assert (first.stage, first.layer) == ("forward", "middle")
    assert first.one_of == ("middle", "the model")


def test_weights_may_differ_by_gradients_that_were_not_recorded(tmp_path: Path) -> None:
    def only_weights(step: int, found: dict[str, float]) -> None:
        for key in [key for key in found if "/weights/" not in key]:
            del found[key]

    def bend(step: int, found: dict[str, float]) -> None:
        only_weights(step, found)
        bent(AT, WEIGHTS[:1])(step, found)

    a, b = record(tmp_path / "a.h5", only_weights), record(tmp_path / "b.h5", bend)
    first = flexrec.diff(a, b).first
    assert first is not None
    assert (first.stage, first.one_of) == ("weights", ("first", "the gradients", "the optimizer"))


def test_without_the_weights_of_the_step_before_they_may_be_it(tmp_path: Path) -> None:
    changed = ("middle/outputs/mean", "middle/weights/mean")
    a = record(tmp_path / "a.h5")
    first = flexrec.diff(a, record(tmp_path / "b.h5", bent(0, changed))).first
    assert first is not None
    assert (first.step, first.previous_step) == (0, None)
    assert (first.stage, first.layer) == ("forward", "middle")
    assert first.one_of == ("middle", "the weights of middle before the step")


def test_an_empty_config_has_no_entries(tmp_path: Path) -> None:
    a = record(tmp_path / "a.h5", config={})
    b = record(tmp_path / "b.h5", config={"lr": 0.5})
    assert [change.name for change in flexrec.diff(a, b).config] == ["lr"]
    assert flexrec.diff(a, record(tmp_path / "c.h5")).config == ()


def test_what_differs_from_the_first_step_may_be_the_config(tmp_path: Path) -> None:
    changed = ("middle/outputs/mean",)
    a = record(tmp_path / "a.h5", config={"threads": 1})
    b = record(tmp_path / "b.h5", bent(0, changed), config={"threads": 2})
    first = flexrec.diff(a, b).first
    assert first is not None
    assert (first.stage, first.layer) == ("config", "middle")
    assert first.cause.startswith("threads differs, first seen in middle")


def test_steps_between_say_between(tmp_path: Path) -> None:
    a = record(tmp_path / "a.h5", every=4, steps=9)
    changed = ("middle/outputs/mean", *WEIGHTS)
    found = flexrec.diff(a, record(tmp_path / "b.h5", bent(5, changed), every=4, steps=9))
    assert found.first is not None
    assert (found.first.step, found.first.previous_step) == (8, 4)
    assert found.first.layer is None
    assert "between step 4 (equal) and 8" in str(found)


def test_a_loss_at_a_step_without_layers_names_none(tmp_path: Path) -> None:
    a = record(tmp_path / "a.h5", every=4)
    found = flexrec.diff(a, record(tmp_path / "b.h5", bent(5, ("train_loss",)), every=4))
    assert found.first is not None
    assert (found.first.step, found.first.stage) == (5, "loss")
    assert found.first.one_of == ("the loss", "any layer", "an earlier step")


def test_recording_more_often_is_told_and_is_no_fault(tmp_path: Path) -> None:
    found = flexrec.diff(record(tmp_path / "a.h5"), record(tmp_path / "b.h5", every=4))
    assert found.first is None
    assert not found.equal
    assert found.keys.unmatched["middle/weights/mean"] == (6, 0)
    assert "values at steps that only one has (6 only in a.h5)" in str(found)


def test_a_layer_that_goes_missing_is_a_difference(whole: Path, tmp_path: Path) -> None:
    def freeze(step: int, found: dict[str, float]) -> None:
        if step >= AT:
            del found["first/grad_weights/mean"]

    found = flexrec.diff(whole, record(tmp_path / "b.h5", freeze))
    assert found.first is not None
    assert (found.first.step, found.first.layer) == (AT, "first")
    assert (found.first.a, found.first.b) == ("recorded", None)


def test_keys_and_lengths_that_only_one_has(tmp_path: Path) -> None:
    def more(step: int, found: dict[str, float]) -> None:
        found["extra"] = 1.0

    found = flexrec.diff(record(tmp_path / "a.h5", more), record(tmp_path / "b.h5", steps=6))
    assert (found.keys.only_a, found.keys.only_b) == (("extra",), ())
    assert (found.last_a, found.last_b) == (7, 5)
    assert found.first is None
    assert not found.equal
    assert "only in a.h5: extra" in str(found)
    assert "a.h5 ends at step 7, b.h5 at 5" in str(found)


@pytest.mark.parametrize(
    ("a", "b", "is_equal"),
    [
        (0.0, -0.0, False),
        (math.nan, math.nan, True),
        (math.nan, -math.nan, False),
        (math.inf, math.inf, True),
        (1.0, math.nextafter(1.0, 2.0), False),
    ],
)
def test_equal_means_to_the_bit(tmp_path: Path, a: float, b: float, is_equal: bool) -> None:
    for name, value in (("a.h5", a), ("b.h5", b)):
        with Recorder(tmp_path / name, facts=False) as rec:
            rec.add({"x": value, "tensor": np.array([value, 2.0])})
    for key in ("x", "tensor"):
        found = flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5", keys=[key])
        assert found.equal is is_equal


def test_tolerances_are_those_of_check(whole: Path, tmp_path: Path) -> None:
    other = record(tmp_path / "b.h5", bent(AT, {"train_loss": 1e-4}))
    assert not flexrec.diff(whole, other, rtol=1e-6).equal
    assert flexrec.diff(whole, other, rtol=1e-2).equal
    assert flexrec.diff(whole, other, atol=1e-3).equal
    with pytest.raises(DefinitionError, match=r"tolerances are 0 or more, got rtol=-1"):
        flexrec.diff(whole, other, rtol=-1)


def test_arrays_texts_and_tuples_are_compared(tmp_path: Path) -> None:
    for name, last in (("a.h5", 5), ("b.h5", 6)):
        with Recorder(tmp_path / name, facts=False) as rec:
            for step in range(3):
                image = np.arange(6).reshape(2, 3)
                image[1, 2] = last if step == 2 else 5
                rec.add(image=image, pair=(image, 1.0), text="a" if step < 2 else f"{last}")
                rec.step()
    for key, a, b in (
        ("image", "5 at [1, 2]", "6 at [1, 2]"),
        ("pair", "5 at [1, 2]", "6 at [1, 2]"),
        ("text", "5", "6"),
    ):
        first = flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5", keys=[key]).first
        assert first is not None
        assert (first.step, first.a, first.b) == (2, a, b)


def test_values_within_a_step_are_matched_in_order(tmp_path: Path) -> None:
    for name, third in (("a.h5", 3.0), ("b.h5", 4.0)):
        with Recorder(tmp_path / name, facts=False) as rec:
            for value in (1.0, 2.0, third):
                rec.add(x=value)
            rec.step()
            rec.add(x=9.0)
    first = flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5").first
    assert first is not None
    assert (first.step, first.a, first.b) == (0, 3.0, 4.0)


def test_steps_are_matched_by_number_in_any_order(tmp_path: Path) -> None:
    for name, steps in (("a.h5", [3, 1, 2, 2]), ("b.h5", [1, 2, 3, 2, 7])):
        with Recorder(tmp_path / name, facts=False) as rec:
            for i, step in enumerate(steps):
                rec.step(step)
                rec.add(x=float(step), text=f"{step}", y=float(i))
    found = flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5", keys=["x", "text"])
    assert found.first is None
    assert found.keys.unmatched == {"x": (0, 1), "text": (0, 1)}
    first = flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5", keys=["y"]).first
    assert first is not None
    assert (first.step, first.a, first.b) == (1, 1.0, 0.0)


def test_layers_that_were_renamed(whole: Path, tmp_path: Path) -> None:
    def rename(step: int, found: dict[str, float]) -> None:
        for key in [key for key in found if key.startswith("middle/")]:
            found[f"net.{key}"] = found.pop(key)

    other = record(tmp_path / "b.h5", rename)
    assert not flexrec.diff(whole, other).equal
    assert flexrec.diff(whole, other, rename={"mid*": "net.mid*"}).equal
    with pytest.raises(DefinitionError, match="'lr' and 'train_loss' would both be called 'x'"):
        flexrec.diff(whole, other, rename={"*": "x"})


def test_a_pattern_that_renames_nothing_is_told(whole: Path) -> None:
    names = {"midle": "x", "mid*": "mid*", "first": "first", "*/nothing": "y"}
    notes = flexrec.diff(whole, whole, rename=names).notes
    assert [note.partition(",")[0] for note in notes] == ["'midle'", "'*/nothing'"]
    assert f"fits no key or layer of {whole.name}" in notes[0]


def test_a_pattern_alone_is_one_pattern(whole: Path) -> None:
    assert flexrec.diff(whole, whole, keys="first/*").keys.compared > 1
    assert flexrec.diff(whole, whole, keys="lr").keys.compared == 1


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (0.1, 0.1 + 2**-56, "0.1 -> 0.10000000000000002"),
        (1.0, 1.5, "1 -> 1.5"),
        (0.0, -0.0, "0 -> -0"),
        (float("nan"), -float("nan"), "nan -> nan of other bits"),
    ],
)
@pytest.mark.parametrize("key", ["train_loss", "lr"])
def test_values_that_differ_are_shown_so(
    tmp_path: Path, key: str, a: float, b: float, said: str
) -> None:
    for name, value in (("a.h5", a), ("b.h5", b)):
        with Recorder(tmp_path / name, facts=False) as rec:
            rec.add({key: value})
    found = flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5")
    assert found.first is not None
    assert f"{key} {said}" in str(found)
    assert key != "lr" or found.first.cause == f"lr {said}"


def test_how_far_fingerprints_are_apart_is_not_told(tmp_path: Path) -> None:
    for name, value in (("a.h5", 1.0), ("b.h5", 2.0)):
        with Recorder(tmp_path / name, facts=False) as rec:
            rec.add({"loss/fingerprint": value, "val_loss": value})
    with Recording(tmp_path / "a.h5") as a, Recording(tmp_path / "b.h5") as b:
        found = flexrec.diff(a, b)
        drawn = windows_of(found, *runs_of([a, b]))
    assert {crossing.key for crossing in found.crossed} == {"val_loss"}
    assert [window.win for window in drawn] == ["diff/report", "diff/val_loss"]


def test_nothing_in_common_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Recorder(tmp_path / f"{name}.h5", facts=False) as rec:
            rec.add({name: 1.0})
    found = flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5")
    assert (found.equal, found.headline) == (False, "they have no key in common")
    assert "first     none: they have no key in common" in str(found)


def test_only_the_keys_that_are_asked_for(whole: Path, tmp_path: Path) -> None:
    other = record(tmp_path / "b.h5", bent(AT, ("train_loss",)))
    assert flexrec.diff(whole, other, keys=["*/weights/*"]).equal
    with pytest.raises(RecordingError, match=r"neither a\.h5 nor b\.h5 has a key that fits 'zz'"):
        flexrec.diff(whole, other, keys=["zz"])
    with pytest.raises(RecordingError, match="did you mean 'train_loss'"):
        flexrec.diff(whole, other, keys=["tran_loss"])


def test_what_measures_time_is_not_compared_unless_named(tmp_path: Path) -> None:
    for name, value in (("a.h5", 1.0), ("b.h5", 2.0)):
        record(tmp_path / name, lambda _, found, v=value: found.update(step_time=v))  # type: ignore[misc]
    found = flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5")
    assert found.equal
    assert "not compared unless named, as they measure time: step_time" in str(found)
    assert not flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5", keys=["step_time"]).equal


def test_facts_explain_and_do_not_accuse(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        record(tmp_path / name, facts=True)
    with Recording(tmp_path / "a.h5") as a, Recording(tmp_path / "b.h5") as b:
        assert a.facts is not None
        a.facts["packages"]["torch"] = "1.0.0"
        found = flexrec.diff(a, b)
    assert found.equal
    assert [change.name for change in found.facts] == ["packages.torch"]
    assert re.search(r"^facts     packages\.torch 1\.0\.0 -> ", str(found), re.MULTILINE)


def test_many_keys_are_read_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flexrec.replay.diff.run.MOST", 50)
    found = flexrec.diff(record(tmp_path / "a.h5"), record(tmp_path / "b.h5", bent(3, WEIGHTS)))
    assert found.first is not None
    assert (found.first.step, found.first.stage) == (3, "optimizer")


def test_a_notebook_shows_it(whole: Path, tmp_path: Path) -> None:
    other = record(tmp_path / "b.h5", lambda _, found: found.update({"<b>": 1.0}))
    assert "&lt;b&gt;" in flexrec.diff(whole, other)._repr_html_()


def test_fingerprints_are_shown_as_in_a_trace(tmp_path: Path) -> None:
    for name, value in (("a", 0xCD10418E), ("b", 0xFE2914D1)):
        with Recorder(tmp_path / f"{name}.h5", facts=False) as rec:
            rec.add({"batch/fingerprint": value})
            rec.step()
    found = flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5")
    assert found.first is not None
    assert (found.first.a, found.first.b) == ("#cd10418e", "#fe2914d1")
    assert found.first.relative is None


def test_fingerprints_of_a_cpu_and_an_accelerator_are_not_compared(tmp_path: Path) -> None:
    """They are computed by different formulas; each number says by which."""
    for name, mark in (("a", 0), ("b", ON_ACCELERATOR)):
        with Recorder(tmp_path / f"{name}.h5", facts=False) as rec:
            for step in range(3):
                rec.add({"batch/fingerprint": step, "0/outputs/fingerprint": mark + step})
                rec.step()
    found = flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5")
    assert found.equal
    said = "as one is of the CPU and the other of an accelerator: 0/outputs/fingerprint"
    assert said in found.notes[0]
    assert found.keys.compared == 1
    with pytest.raises(RecordingError, match=r"nothing to compare: not compared, as one is of the"):
        flexrec.diff(tmp_path / "a.h5", tmp_path / "b.h5", keys="0/*")


def test_runs_with_nothing_to_compare_are_not_said_to_be_equal(tmp_path: Path) -> None:
    paths = tmp_path / "a.h5", tmp_path / "b.h5"
    for keys, options, why in (
        ((), {}, "they have no keys"),
        (("step_time",), {}, "not compared unless named, as they measure time: step_time"),
        (("x/fingerprint",), {"rtol": 1e-3}, "fingerprints are left out with a tolerance"),
    ):
        for path in paths:
            with Recorder(path, mode="w", facts=False) as rec:
                for key in keys:
                    rec.add({key: 1.0})
        with pytest.raises(RecordingError, match=f"b.h5 have nothing to compare: {why}"):
            flexrec.diff(*paths, **options)  # type: ignore[arg-type]
