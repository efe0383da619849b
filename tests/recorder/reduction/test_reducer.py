"""Compact tensors: what a meter remembers, recorded in the tensors' place, replays to the bit."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexrec.recorder import DefinitionError, InputError, MeterError, Recorder, Recording
from flexrec.recorder.events import Add, State
from flexrec.recorder.reduction.reducer import Reducer, Rule, reduction
from flexrec.recorder.reduction.reductions import REDUCTIONS, Cells, ClassErrors
from flexrec.recorder.storage.format import Form, Schema
from flexrec.recorder.writing.notices import advice
from flexrec.replay import Definitions, FlexLogger, Window, define, play, preset
from flexrec.replay.meters import build, meter_types
from flexrec.replay.plots.window import equal
from flexrec.replay.sinks.base import ListSink

quiet = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

DTYPES = ("f2", "f4", "f8", ">f4", "g", "i4", "u1")


def scores(rng: np.random.Generator, dtype: str) -> Any:
    """(output, target) of a classification with five classes, ties and NaN among the scores."""
    n = int(rng.integers(1, 6))
    output = rng.integers(0, 4, (n, 5)).astype(dtype)
    if output.dtype.kind == "f" and rng.random() < 0.3:
        output[0, 2] = np.nan
    return np.asfortranarray(output), rng.integers(0, 5, n)


def classes(rng: np.random.Generator, dtype: str) -> Any:
    """(predicted, target) as class numbers."""
    n = int(rng.integers(1, 50))
    return rng.integers(0, 5, n).astype(dtype), rng.integers(0, 5, n)


def numbers(rng: np.random.Generator, dtype: str) -> Any:
    """A pair of arrays of one shape."""
    shape = tuple(rng.integers(1, 5, int(rng.integers(1, 4))))
    pair = rng.normal(0, 50, (2, *shape)).clip(0).astype(dtype)
    return [pair[0], pair[1]]


def samples(rng: np.random.Generator, dtype: str) -> Any:
    """One array, or one number."""
    values = rng.normal(0, 3, int(rng.integers(0, 40))).astype(dtype)
    return values if rng.random() < 0.8 else float(rng.normal())


def sums(rng: np.random.Generator, _: str) -> Any:
    """(sum, how many), a number, or an array."""
    kinds = [(rng.normal(), int(rng.integers(1, 9))), rng.normal(), np.array([rng.normal()])]
    return kinds[int(rng.integers(0, 3))]


Make = Callable[[np.random.Generator, str], Any]
CASES: list[tuple[str, dict[str, Any], Make]] = [
    ("MSEMeter", {}, numbers),
    ("MSEMeter", {"root": True}, numbers),
    ("ClassErrorMeter", {}, scores),
    ("ClassErrorMeter", {"topk": [3, 1], "accuracy": True}, scores),
    ("ConfusionMeter", {"k": 5}, scores),
    ("ConfusionMeter", {"k": 40}, classes),
    ("ConfusionMeter", {"normalized": True}, classes),
    ("HistogramMeter", {"bins": 7}, samples),
    ("HistogramMeter", {"bins": 4, "range": [-2, 2]}, samples),
    ("AverageValueMeter", {"mean": False}, sums),
    ("AverageValueMeter", {"mean": True}, sums),
    ("ClassErrorMeter", {"topk": [3, 1], "ignore": [0, 2]}, scores),
    ("ConfusionMeter", {"k": 5, "ignore": 1}, scores),
    ("ConfusionMeter", {"ignore": (1, 3, -100)}, classes),
]


def definitions(meter: str, args: dict[str, Any]) -> Definitions:
    """The meter's first result, over all of the run and in full."""
    return define(
        {"plot": {"type": "heatmap" if meter == "ConfusionMeter" else "line"}},
        {"key": {"type": meter, "args": args, "target": "plot"}},
    )


def recorded(path: Path, values: Sequence[Any], reduce: Any, *, close: bool = True) -> Path:
    """A recording of values under `key`, with a mark after every third."""
    rec = Recorder(path, facts=False, flush_seconds=60, reduce=reduce)
    for i, value in enumerate(values):
        rec.add(key=value)
        rec.step()
        if i % 3 == 2:
            rec.log()
    rec.log(reset=False)
    rec.flush()
    if close:
        rec.close()
    return path


def results(path: Path, meter: str, args: dict[str, Any]) -> list[Any]:
    """All that the meter gives at every mark, event by event."""
    found, made = [], build(meter, args)
    with Recording(path) as run:
        for event in run.events():
            if isinstance(event, Add):
                value = event.values["key"]
                if isinstance(value, State):
                    made.merge(*value)
                else:
                    made.add(*(value if isinstance(value, tuple) else (value,)))
                continue
            found.append(made.value())
            made.reset()
    return found


def windows(path: Path, meter: str, args: dict[str, Any]) -> list[Window]:
    """What is plotted."""
    with Recording(path) as run:
        return play(run, definitions(meter, args), strict=True)


def same(a: Any, b: Any) -> bool:
    """Equal to the bit."""
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f"))


@pytest.mark.parametrize(
    ("meter", "args", "make"), CASES, ids=lambda part: getattr(part, "__name__", str(part))[:30]
)
@quiet
@given(seed=st.integers(0, 10**6), count=st.integers(1, 7), dtype=st.sampled_from(DTYPES))
def test_a_reduced_key_replays_as_the_raw_one(
    meter: str,
    args: dict[str, Any],
    make: Make,
    seed: int,
    count: int,
    dtype: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("runs")
    values = [make(rng, dtype) for _ in range(count)]
    raw = recorded(folder / "raw.h5", values, None)
    small = recorded(folder / "small.h5", values, {"k*": (meter, args)})
    wanted, found = results(raw, meter, args), results(small, meter, args)
    assert len(wanted) == len(found)
    assert all(map(same, wanted, found))
    if meter != "HistogramMeter":  # a line of an array is no line
        for a, b in zip(windows(raw, meter, args), windows(small, meter, args), strict=True):
            assert equal(a, b)


def test_live_killed_and_resumed_files_hold_states_too(tmp_path: Path) -> None:
    path, rng = tmp_path / "run.h5", np.random.default_rng(0)
    pairs = [tuple(rng.normal(size=(2, 6))) for _ in range(8)]
    rec = Recorder(path, facts=False, flush_seconds=60, reduce={"key": "MSEMeter"})
    for output, target in pairs[:4]:
        rec.add(key=(output, target), loss=1.0)
    rec.flush()
    with Recording(path) as live:
        assert live.kind("key") == "state of MSEMeter()"
        states = live["key"].value
    assert all(isinstance(state, State) for state in states)
    rec.close()
    with Recorder(path, facts=False, mode="resume", reduce={"key": "MSEMeter"}) as rec:
        for output, target in pairs[4:]:
            rec.add(key=(output, target), loss=1.0)
        rec.log(0)
    raw = build("MSEMeter", {})
    for pair in pairs:
        raw.add(*pair)
    with Recording(path) as run:
        (window,) = play(run, definitions("MSEMeter", {}))
    assert window.traces[0].y.tolist() == [raw.value()]


def test_recording_events_again_keeps_states(tmp_path: Path) -> None:
    source = recorded(tmp_path / "a.h5", [(np.ones(3), np.zeros(3))] * 4, {"key": "MSEMeter"})
    with Recording(source) as run, Recorder(tmp_path / "b.h5", facts=False) as rec:
        for event in run.events():
            rec.record(event)
    for a, b in zip(
        windows(source, "MSEMeter", {}), windows(tmp_path / "b.h5", "MSEMeter", {}), strict=True
    ):
        assert equal(a, b)


def test_a_value_after_a_state_is_no_state(tmp_path: Path) -> None:
    state = State((4.0, 4.0), reduction("MSEMeter"))
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        for _ in range(2):
            rec.record(Add({"k": state}, 0, 0.0))
        rec.add(k=(1.0, 2.0))
    with Recording(tmp_path / "run.h5") as run:
        assert run.kind("k") == "state of MSEMeter() or (number, number)"
        assert list(run["k"].value) == [state, state, (1.0, 2.0)]


def test_plotting_live_while_recording_states(tmp_path: Path) -> None:
    defs, sink = definitions("ClassErrorMeter", {}), ListSink()
    rng = np.random.default_rng(1)
    with Recorder(tmp_path / "a.h5", facts=False, reduce=defs.reductions()) as rec:
        logger = FlexLogger(defs, recorder=rec, sink=sink)
        for _ in range(5):
            logger.add({"key": scores(rng, "f4")})
        logger.log(0)
    (live,), (replayed,) = sink.windows.values(), windows(tmp_path / "a.h5", "ClassErrorMeter", {})
    assert equal(live, replayed)


def test_another_meter_is_told_what_was_kept(tmp_path: Path) -> None:
    pair = (np.ones((2, 3), "f4"), np.zeros(2))
    path = recorded(tmp_path / "a.h5", [pair], {"key": ("ClassErrorMeter", {"topk": (1, 2)})})
    asking: list[tuple[str, dict[str, Any], str]] = [
        ("AUCMeter", {}, "AUCMeter"),
        ("MSEMeter", {}, r"MSEMeter\(\)"),
        ("ClassErrorMeter", {}, r"ClassErrorMeter\(topk=\(1,\)\)"),
    ]
    for meter, args, asked in asking:
        with pytest.raises(MeterError, match=rf"what ClassErrorMeter\(topk=\(1, 2\)\).*{asked}"):
            windows(path, meter, args)
    assert windows(path, "ClassErrorMeter", {"topk": [1, 2], "accuracy": True})
    assert windows(path, "TimeMeter", {}), "it only counts"


def test_a_matrix_of_given_size_serves_a_meter_that_is_not_told() -> None:
    assert Cells(10).serves(Cells(None))
    assert not Cells(None).serves(Cells(10))
    assert not Cells(10).serves(ClassErrors())


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"a": "MSEMetre"}, "did you mean 'MSEMeter'"),
        ({"a": "AUCMeter"}, "keeps no small state"),
        ({"a": ("ConfusionMeter", {"K": 10})}, "its arguments are k, ignore, normalized"),
        ({"a": ("ConfusionMeter", {"k": 0})}, "at least 1"),
        ({"a": ("HistogramMeter", {"range": (1, 0)})}, "lowest, highest"),
        ({"a": 3}, "takes a meter's name"),
        (["a"], "takes a mapping of keys to meters"),
        ("MSE", r"such as preset..MSE.."),
        (Path("plots.toml"), "load_toml"),
    ],
)
def test_wrong_rules_are_told_before_a_file_is_made(
    rules: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DefinitionError, match=message):
        Recorder(tmp_path / "a.h5", reduce=rules)
    assert not list(tmp_path.iterdir())


def test_a_value_that_the_meter_cannot_take_is_refused_whole(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.h5", facts=False, reduce={"key": "MSEMeter"}) as rec:
        for wrong in [(np.ones(3), np.ones(4)), np.ones(3), ("a", "b"), (np.ones(2), None)]:
            with pytest.raises(InputError, match=r"'key'"):
                rec.add(other=1.0, key=wrong)
        rec.add(key=None, other=2.0)
    with Recording(tmp_path / "a.h5") as run:
        assert run.keys() == ["other"]
        assert run["other"].value.tolist() == [2.0]


def test_what_is_refused_says_what_the_meter_takes(tmp_path: Path) -> None:
    with (
        Recorder(tmp_path / "a.h5", facts=False, reduce={"k": "MSEMeter"}) as rec,
        pytest.raises(InputError, match=r"it takes \(output, target\), and was given 1 value$"),
    ):
        rec.add(k=np.ones(3))


def test_the_first_rule_that_fits_holds_and_a_name_before_patterns() -> None:
    reducer = Reducer(
        {"*": "HistogramMeter", "train_*": "MSEMeter", "train_acc": "ClassErrorMeter"}
    )
    assert str(reducer.of("train_acc")) == "ClassErrorMeter(topk=(1,))"
    assert str(reducer.of("train_mse")) == "HistogramMeter(bins=64, range=None)"
    assert Reducer({"a": "MSEMeter"}).of("b") is None


def test_every_reduction_is_a_meters_and_says_its_arguments() -> None:
    assert set(REDUCTIONS) <= set(meter_types())
    for name, kind in REDUCTIONS.items():
        made = build(name, {})
        assert made.reduction == kind()
        assert kind.of(made.reduction.args()) == made.reduction
        for shown in kind.shown:
            assert build(name, {shown: True}).reduction == kind()


def test_definitions_say_what_is_enough_for_them(tmp_path: Path) -> None:
    kept = preset("MSE+acc+confusion+AUC+time", phases=["test"]).reductions()
    assert {key: value.meter for key, value in kept.items()} == {
        **dict.fromkeys(("test[_/.-]mse", "mse[_/.-]test"), "MSEMeter"),
        **dict.fromkeys(("test[_/.-]acc", "acc[_/.-]test"), "ClassErrorMeter"),
        **dict.fromkeys(("test[_/.-]confusion", "confusion[_/.-]test"), "ConfusionMeter"),
    }
    both = define(
        {"a": {"type": "line"}},
        {
            "x": {"key": "k", "type": "MSEMeter", "target": "a"},
            "y": {"key": "k", "type": "ClassErrorMeter", "target": "a"},
        },
    )
    with pytest.raises(DefinitionError, match="cannot be reduced for both"):
        both.reductions()


@pytest.mark.parametrize(
    ("pattern", "key", "kept"),
    [
        ("MSEMeter", "MSEMeter", ["*_out", "a_out"]),
        ("LastValueMeter", "MSEMeter", []),  # a_out feeds both, and so must stay as it is
        ("MSEMeter", "LastValueMeter", []),
        ("MSEMeter", "ClassErrorMeter", None),
    ],
)
def test_a_key_that_a_pattern_means_too_is_kept_for_both(
    pattern: str, key: str, kept: list[str] | None
) -> None:
    meters = {"*_out": {"type": pattern, "target": "a"}, "a_out": {"type": key, "target": "a"}}
    definitions = define({"a": {"type": "line"}}, meters)
    if kept is not None:
        assert list(definitions.reductions()) == kept
        return
    with pytest.raises(DefinitionError, match="cannot be reduced for both"):
        definitions.reductions()


def test_a_pattern_that_excludes_some_is_not_reduced() -> None:
    assert not preset("layers").reductions()


def test_a_recorder_takes_definitions(tmp_path: Path) -> None:
    pair = (np.ones((4, 2)), np.zeros((4, 2)))
    with Recorder(tmp_path / "a.h5", facts=False, reduce=preset("MSE+confusion")) as rec:
        rec.add(train_mse=pair)  # of what never comes nothing is said
    with Recording(tmp_path / "a.h5") as run:
        assert run.kind("train_mse").startswith("state of MSEMeter")


def test_a_name_that_nothing_came_under_is_spoken_of(tmp_path: Path) -> None:
    rec = Recorder(
        tmp_path / "a.h5", facts=False, reduce={"trian_mse": "MSEMeter", "*_b": "MSEMeter"}
    )
    rec.add(train_mse=0.5, test_b=0.5)
    with pytest.warns(RuntimeWarning, match="reduce= matched no recorded key: trian_mse$"):
        rec.close()


def test_the_schema_says_what_reduced_a_key(tmp_path: Path) -> None:
    rules = {"key": ("ConfusionMeter", {"k": 10, "normalized": True})}
    pair = (np.ones((2, 10), "f4"), np.zeros(2, "i8"))
    path = recorded(tmp_path / "a.h5", [pair] * 50, rules)
    with h5py.File(path) as file:
        text = bytes(file["schema"][:]).decode()
    assert '"reduced":["ConfusionMeter",{"k":10}]' in text
    raw = recorded(tmp_path / "b.h5", [pair] * 50, None)
    with Recording(path) as small, Recording(raw) as large:
        assert small.columns.stored_bytes("key") < 3000
        assert large.kind("key") == "(float32:2, int64:1)"


def test_tensors_are_reduced_as_arrays(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    output = torch.randn(8, 10, requires_grad=True)
    values = [(output, torch.randint(0, 10, (8,))), (output.bfloat16(), torch.tensor([1] * 8))]
    rules = {"key": "ClassErrorMeter"}
    raw, small = (
        recorded(tmp_path / f"{name}.h5", values, reduce)
        for name, reduce in (("raw", None), ("small", rules))
    )
    assert results(raw, "ClassErrorMeter", {}) == results(small, "ClassErrorMeter", {})


def test_large_raw_tensors_are_spoken_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["flexrec.recorder.writing.notices"], "_MANY_BYTES", 1000)
    pair = (np.ones(50), np.ones(50))
    fits = r"'key' has passed .* reduce=\{'key': \"MSEMeter"
    with pytest.warns(RuntimeWarning, match=fits) as caught:
        recorded(tmp_path / "a.h5", [pair] * 5, None)
    assert len(caught) == 1
    recorded(tmp_path / "b.h5", [pair] * 5, {"key": "MSEMeter"})  # a warning would be an error


@pytest.mark.parametrize(
    ("key", "forms", "meter"),
    [
        ("k", ["float32:2", "int64:1"], "ClassErrorMeter"),
        ("k", ["float32:2", "float32:2"], "MSEMeter"),
        ("k", ["float32:4"], "HistogramMeter"),
        ("k", ["float32:2", "float32:1"], None),
        ("k", ["float32:2", "number"], None),
        ("k", ["text"], None),
        ("k", ["uint8:2", "uint8:2"], None),
        ("1/activations", ["float32:2", "int64:1"], None),
    ],
)
def test_the_meter_that_is_advised_takes_such_arrays(
    key: str, forms: list[str], meter: str | None
) -> None:
    assert advice(key, [Form.parse(form) for form in forms]) == meter


def test_bytes_are_counted_whatever_the_arrays_turn_into(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        for i in range(30):
            rec.add(k=np.zeros(100, "f8" if i % 10 else "f4"), n=1.0)
        rec.flush()
        assert rec._flusher._heavy.sizes["k"] == 27 * 800 + 3 * 400


@pytest.mark.parametrize(
    "reduced", ['["Nothing",{}]', '["MSEMeter"]', "3", '["ConfusionMeter",{"k":-1}]']
)
def test_a_damaged_schema_is_an_error(tmp_path: Path, reduced: str) -> None:
    line = f'{{"key":"a","forms":["number","number"],"bare":false,"reduced":{reduced}}}\n'
    with pytest.raises(ValueError, match="schema is damaged"):
        Schema.decode(line.encode())


HOSTILE = [
    ("ConfusionMeter", (3.0,)),
    ("ConfusionMeter", (3.0, 1.0, 1.0)),
    ("ConfusionMeter", (float("nan"), np.zeros(1, "i8"), np.zeros(1, "i8"))),
    ("ConfusionMeter", (3.0, np.array([99]), np.array([1]))),
    ("HistogramMeter", (np.ones(3, "i8"), 0.0, 1e300)),
    ("HistogramMeter", (np.ones(3, "i8"), float("inf"), 0.0)),
    ("HistogramMeter", (np.ones((2, 2), "i8"), 0.0, 0.0)),
    ("MSEMeter", ("text", 1.0)),
    ("ClassErrorMeter", (1.0,)),
]


@pytest.mark.parametrize(("meter", "parts"), HOSTILE)
def test_a_hostile_state_is_a_meter_error(
    meter: str, parts: tuple[Any, ...], tmp_path: Path
) -> None:
    with Recorder(tmp_path / "a.h5", facts=False) as rec:
        for _ in range(2):
            rec.record(Add({"key": State(parts, reduction(meter))}, 0, 0.0))
        rec.log()
    with pytest.raises(MeterError, match="'key'"):
        windows(tmp_path / "a.h5", meter, {})


@pytest.mark.parametrize(
    ("meter", "args"),
    [("ConfusionMeter", {"k": np.int64(3)}), ("HistogramMeter", {"bins": np.int8(9)})],
)
def test_arguments_may_be_numpys(tmp_path: Path, meter: str, args: dict[str, Any]) -> None:
    with Recorder(tmp_path / "run.h5", facts=False, reduce={"m": (meter, args)}) as rec:
        rec.add(m=(np.array([0, 1]), np.array([0, 2])) if "k" in args else np.arange(9.0))
        rec.log(0)
    plain = {name: int(value) for name, value in args.items()}
    drawn = define({"p": {"type": "heatmap"}}, {"m": {"type": meter, "args": plain, "target": "p"}})
    with Recording(tmp_path / "run.h5") as run:
        assert play(run, drawn)


def test_a_recorded_sum_is_not_read_as_a_mean(tmp_path: Path) -> None:
    meters = {"a": {"type": "AverageValueMeter", "target": "p", "args": {"mean": True}}}
    asked = define({"p": {"type": "line"}}, meters)
    for name, arguments in (("sum", {}), ("mean", {"mean": True})):
        path = tmp_path / f"{name}.h5"
        with Recorder(path, reduce={"a": ("AverageValueMeter", arguments)}, facts=False) as rec:
            rec.add(a=(0.5, 32))
            rec.log(0)
    with Recording(tmp_path / "mean.h5") as run:
        assert list(play(run, asked)[0].traces[0].y) == [0.5]
    with (
        Recording(tmp_path / "sum.h5") as run,
        pytest.warns(RuntimeWarning, match="it was recorded with reduce=.*cannot be computed"),
    ):
        assert not play(run, asked)


def test_a_reduced_pair_that_looks_like_a_mean_is_warned_of_once(tmp_path: Path) -> None:
    rules: dict[str, Rule] = {
        "*loss": "AverageValueMeter",
        "sum": ("AverageValueMeter", {"mean": False}),
    }
    pairs = {"loss": (0.5, 32), "val_loss": (0.25, 8), "sum": (0.5, 32)}
    with Recorder(tmp_path / "run.h5", reduce=rules, facts=False) as rec:
        with pytest.warns(RuntimeWarning, match=r"'loss': \(0.5, 32\) is taken for a sum") as said:
            rec.add(pairs)
        rec.add(pairs)  # a warning would be an error
    assert len(said) == 1
