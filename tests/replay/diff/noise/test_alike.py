"""What all references agree on to the bit is compared to the bit: of the traces, too."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flexrec
from flexrec.recorder import Recorder

STEPS, AT = 14, 6
ORDER: list[list[Any]] = [
    ["data", "batch", "", 0, "", -1],
    ["random", "step", "", 0, "", -1],
    ["attributes", "drop", "", 0, "", -1],
    ["inputs", "drop", "", 0, "", 0],
    ["outputs", "drop", "", 0, "", 1],
    ["settings", "SGD", "0.lr", 0, "", -1],
]


def trained(path: Path, seed: int, fault: str = "", *, noise: Sequence[str] = ("outputs",)) -> Path:
    """A run whose outputs are noisy, and in which a kind of events is another one from `AT` on."""
    chance = np.random.default_rng(seed)
    with Recorder(path, facts=False) as rec:
        for step in range(STEPS):
            is_bent = bool(fault) and step >= AT
            order = [*ORDER[:5], ORDER[4], *ORDER[5:]] if is_bent and fault == "order" else ORDER
            if is_bent and fault == "order":
                order = [*ORDER[:5], ["outputs", "other", "", 0, "", 2], ORDER[5]]
            if step in (0, AT):
                attributes = {"drop": {"class": "Dropout", "p": "0.12" if is_bent else "0.1"}}
                rec.add({"trace/order": json.dumps(order)})
                rec.add({"trace/attributes": json.dumps(attributes)})
            values = [
                chance.integers(1 << 50) if kind in noise else 7 + (is_bent and kind == fault)
                for kind, *_ in order
            ]
            rec.add({"trace/values": np.array(values, np.int64)})
            loss = 1 + 1e-3 * chance.normal()
            rec.add({"train_loss": loss, "drop/outputs/mean": 1 + 1e-3 * chance.normal()})
            rec.step()
    return path


@pytest.fixture
def references(tmp_path: Path) -> list[Path]:
    """Runs that are the same but for the outputs."""
    return [trained(tmp_path / f"a{i}.h5", i) for i in range(3)]


@pytest.mark.parametrize(
    ("fault", "stage", "layer", "cause"),
    [
        ("data", "data", None, "batch differs"),
        ("attributes", "forward", "drop", "p 0.1 -> 0.12"),
        ("settings", "optimizer", None, "lr "),
        ("random", "data", None, "the random state differs from the start of step 6 on"),
        ("order", "forward", "other", "one run goes on with "),
    ],
)
def test_what_differs_though_all_references_agree(
    references: list[Path], tmp_path: Path, fault: str, stage: str, layer: str | None, cause: str
) -> None:
    b = trained(tmp_path / "b.h5", 9, fault)
    found = flexrec.diff(references[0], b, noise=references[1:])
    assert not found.equal
    assert found.first is not None
    assert (found.first.step, found.first.previous_step) == (AT, AT - 1)
    assert (found.first.stage, found.first.layer) == (stage, layer)
    assert found.first.cause.startswith(cause)


def test_noise_alone_is_no_difference(references: list[Path], tmp_path: Path) -> None:
    b = trained(tmp_path / "b.h5", 9)
    assert flexrec.diff(references[0], b, noise=references[1:]).equal


@pytest.mark.parametrize("kind", ["data", "attributes", "settings", "random"])
def test_what_differs_among_the_references_is_noise(tmp_path: Path, kind: str) -> None:
    runs = [trained(tmp_path / f"a{i}.h5", i, noise=("outputs", kind)) for i in range(3)]
    b = trained(tmp_path / "b.h5", 9, kind)
    assert flexrec.diff(runs[0], b, noise=runs[1:]).equal


@pytest.mark.parametrize("is_lost", [False, True])
def test_gradients_that_only_one_run_has_are_not_blamed_on_what_they_change(
    tmp_path: Path, *, is_lost: bool
) -> None:
    """A frozen layer: the gradients of the others are clipped less from then on."""

    def clipped(name: str, seed: int, *, is_frozen: bool = False) -> Path:
        chance = np.random.default_rng(seed)
        with Recorder(tmp_path / name, facts=False) as rec:
            for step in range(30):
                is_bent = is_frozen and step >= AT
                sizes = {"0": 1.0, "1": 2.0 if is_bent else 1.0}
                if is_bent:
                    del sizes["0"]
                rec.add(
                    {
                        f"{layer}/grad_weights/{of}": size * (1 + 1e-4 * chance.normal())
                        for layer, size in sizes.items()
                        for of in ("mean", "std")
                    }
                )
                rec.step()
        return tmp_path / name

    a, *others = (clipped(f"{i}.h5", i) for i in range(4))
    first = flexrec.diff(a, clipped("b.h5", 9, is_frozen=is_lost), noise=others).first
    if not is_lost:
        assert first is None
    else:
        assert first is not None
        assert (first.step, first.stage) == (AT, "backward")
        assert "0" in (first.one_of or (first.layer,))
