"""The text of a golden of a run: its size, what git shows of a change, and reading it back."""

import difflib
import json
from pathlib import Path

import numpy as np
import pytest

from flexrec.recorder import Recorder
from flexrec.recorder.errors import GoldenError
from flexrec.replay.golden.run.check import check_run, learn_golden
from flexrec.replay.golden.run.document import dump, read, spacing, thinned
from flexrec.replay.golden.run.reading import kept_of
from support.run_cases import CHANGES, opened, run_of


def test_a_hundred_steps_of_twenty_keys_are_under_20_kb(tmp_path: Path) -> None:
    runs = []
    for seed in range(3):
        numbers = np.random.default_rng(0).normal(size=(100, 20))
        numbers *= 1 + 1e-5 * np.random.default_rng(seed).normal(size=numbers.shape)
        with Recorder(tmp_path / f"{seed}.h5") as rec:
            for row in numbers:
                rec.add({f"blocks.{k}/grad_out/mean": value for k, value in enumerate(row)})
                rec.step()
        runs.append(opened(tmp_path / f"{seed}.h5"))
    check_run(runs[0], tmp_path / "g.json", update=True)
    learn_golden(runs, tmp_path / "learnt.json")
    for name in ("g.json", "learnt.json"):
        assert 5_000 < (tmp_path / name).stat().st_size < 20_000


@pytest.mark.parametrize("every", [1, 5, None])
def test_a_golden_comes_back_from_its_text(every: int | None, tmp_path: Path) -> None:
    path = run_of(tmp_path / "run.h5")
    kept = thinned(kept_of(opened(path)), every)
    text = dump(kept)
    (tmp_path / "g.json").write_text(text, encoding="ascii")
    found = read(tmp_path / "g.json")
    assert dump(found) == text
    codes = {k: {s: c.code for s, c in cells.items()} for k, cells in kept.cells.items()}
    assert {k: {s: c.code for s, c in cells.items()} for k, cells in found.cells.items()} == codes


def test_lines_name_step_and_key(tmp_path: Path) -> None:
    a, b = (
        dump(thinned(kept_of(opened(run_of(tmp_path / f"{name}.h5", change))), every=1))
        for name, change in (("a", None), ("b", CHANGES["a number, by a bit"][1]))
    )
    changed = [line for line in difflib.ndiff(a.splitlines(), b.splitlines()) if line[0] in "+-"]
    assert changed == [
        '- [7, "train_loss", 0.1],',
        '+ [7, "train_loss", 0.10000000000000002],',
    ]
    assert '[0, "nan", "nan"],\n[0, "inf", "-inf"],\n[0, "note", {"text": "step 0"}],' in a
    assert '[0, "array", {"float32": [2, 3], "rms": 3.02765035, "bits": "' in a
    assert '[0, "zero", 0],' in a


def test_of_steps_in_between_the_codes_of_the_keys_that_changed(tmp_path: Path) -> None:
    a, b = (
        dump(thinned(kept_of(opened(run_of(tmp_path / f"{name}.h5", change))), every=5))
        for name, change in (("a", None), ("b", CHANGES["a number, by a bit"][1]))
    )
    old, new = (json.loads(line[2:].rstrip(",")) for line in difflib.ndiff(
        a.splitlines(), b.splitlines()) if line[0] in "+-")  # fmt: skip
    assert old[0] == new[0] == 7
    assert old[1][3:] == new[1][3:]
    assert old[1][:3] != new[1][:3]


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", '{"golden": "run"}', '{"golden": "run", "version": 2}',
             '{"golden": "run", "version": 1, "keys": ["a"]}',
             '{"golden": "run", "version": 1, "keys": ["a"], "values": [3]}',
             '{"golden": "run", "version": 1, "keys": ["a"], "values": [["x", "a", 1]]}',
             '{"golden": "run", "version": 1, "keys": ["a"], "values": [[1, "b", 1]]}',
             '{"golden": "run", "version": 1, "keys": ["a"], "values": [[1, "ab"]]}',
             '{"golden": "run", "version": 1, "keys": ["a"], "values": [[1, "a", "x"]]}',
             '{"golden": "run", "version": 1, "keys": ["a"], "values": [[1, "a", "+-1"]]}',
             '{"golden": "run", "version": 1, "keys": [], "values": [], "differs": {"x": 1}}',
             "<<<<<<< HEAD\n{}", "[" * 100_000],
)  # fmt: skip
def test_a_file_that_is_no_golden_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "g.json"
    path.write_text(text)
    with pytest.raises(GoldenError, match=r"g\.json is (no golden|of version|damaged)"):
        read(path)


RULE = '"learnt from": 2, "differs": {"outside": 2, "of": 3, "keys": 1}'


def golden_of(values: str, *, keys: str = '["a"]', more: str = '"facts": null') -> str:
    """The text of a golden."""
    return f'{{"golden": "run", "version": 1, {more}, "keys": {keys}, "values": [{values}]}}'


@pytest.mark.parametrize(
    "text",
    [
        *(
            golden_of(values)
            for values in (
                '[0, "a", 1], [0, "a", 2]', '[0, "abc"], [0, "a", 2]', '[0, "abc"], [0, "abd"]',
                f'[0, "a", 1{"0" * 400}]', f'[{1 << 70}, "a", 1]', '[0, "a", {}]',
                '[0, "a", {"parts": 5}]', '[0, "a", {"parts": [{}]}]', '[0, "a", [1]]',
                '[0, "a", {"float32": 5, "bits": "0"}]', '[0, "a", {"float32": [5]}]',
                '[0, "a", {"float32": [5], "rms": "abc", "bits": "0"}]', '[0, "a", true]',
                '[0, "a", {"float32": [5], "rms": null, "bits": "0"}]', '[0, "a", {"text": 3}]',
                '[0, "a", 1, "+-1"]', '[0, ["a"]]',
                f'[0, "a", {"{" + chr(34) + "parts" + chr(34) + ": ["} 1, 2]',
            )
        ),
        golden_of('[0, "a", 1]', keys='["a", "a"]'),
        golden_of('[0, "a", 1]', keys='"a"'),
        *(
            golden_of('[0, "a", 1]', more=more)
            for more in (
                '"every": "x"', '"every": [1]', '"every": 0', '"every": -1', '"learnt from": 1e999',
                '"learnt from": 2', '"learnt from": -2',
                *(
                    f'"learnt from": 2, "differs": {{"outside": {a}, "of": {b}, "keys": {c}}}'
                    for a, b, c in ((0, 0, 0), (1, -1, 1), ("1" * 400, 1, 1), (1, 1, 0.5))
                ),
            )
        ),
        golden_of("", keys="[]", more=RULE),
        golden_of("", more=RULE),
        *(
            golden_of(values, more=RULE)
            for values in (
                '[0, "a", {"text": "x"}, {"float32": [1], "rms": 1, "bits": "0"}, "+-1"]',
                '[0, "a", {"text": "x"}, "+-1"]', '[0, "a", 1, "+-nan"]', '[0, "a", 1, "+--1"]',
                '[0, "a", 1, "+-1"], [1, "a", 1]', '[0, "a", "nan", "+-1"]',
            )
        ),
    ],
)  # fmt: skip
def test_a_golden_that_was_tampered_with_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    path.write_text(text)
    with pytest.raises(GoldenError, match=r"g\.json is (damaged|no golden)"):
        read(path)


def test_arrays_that_are_not_finite_come_back_from_json(tmp_path: Path) -> None:
    def run(path: Path, least: float) -> Path:
        arrays = {"nan": np.array([np.nan, least]), "inf": (np.array([-np.inf, least]), 1.0)}
        with Recorder(path, mode="w", facts=False) as rec:
            rec.add(arrays)
        return path

    golden = tmp_path / "g.json"
    a, b = run(tmp_path / "a.h5", 1.0), run(tmp_path / "b.h5", 1.5)
    check_run(opened(a), golden, update=True)
    json.loads(golden.read_text(), parse_constant=pytest.fail)
    for rtol in (0.0, 1e-3):
        assert check_run(opened(a), golden, rtol=rtol).holds
    assert not check_run(opened(b), golden).holds


def test_spacings_are_round() -> None:
    assert [spacing(n, 50) for n in (1, 50, 51, 250, 251, 2501, 10**6)] == [
        1, 1, 2, 5, 10, 100, 20_000,
    ]  # fmt: skip
