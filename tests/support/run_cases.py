"""Runs of a few numbers for goldens, and changes of the least size in each kind of value."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flexrec.recorder import Recorder, Recording

STEPS = 12
Step = dict[str, Any]
Change = Callable[[int, Step], object]


def step_of(step: int) -> Step:
    """One step's values, of every kind."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3) + step
    return {
        "train_loss": 1 / (step + 3),
        "lr": 0.1,
        "epoch": step // 4,
        "zero": 0.0,
        "nan": math.nan,
        "inf": math.inf if step % 2 else -math.inf,
        "note": f"step {step}",
        "array": array,
        "whole": np.arange(step + 1),
        "empty": np.empty((0, 2)),
        "pair": (array.copy(), np.arange(3)),
        "large/fingerprint": 2**53 - 1 - step,
        "step_time": step * 0.37,
    }


def run_of(path: Path, change: Change | None = None, *, steps: int = STEPS, **options: Any) -> Path:
    """Record a run, its values changed in place at each step."""
    with Recorder(path, **{"mode": "w", "facts": False, **options}) as rec:
        for step in range(steps):
            values = step_of(step)
            if change is not None:
                change(step, values)
            rec.add(values)
            rec.step()
    return path


def opened(path: Path) -> Recording:
    """The recording, open until it is collected."""
    return Recording(path)


def _set(key: str, value: Any, at: int = 7) -> Change:
    return lambda step, values: values.update({key: value}) if step == at else None


def _bit(key: str) -> Change:
    def change(step: int, values: Step) -> None:
        if step == 7:
            values[key] = math.nextafter(values[key], 2.0)

    return change


def _element(key: str, part: int | None = None) -> Change:
    def change(step: int, values: Step) -> None:
        if step == 7:
            array = values[key] if part is None else values[key][part]
            array.flat[1] = np.nextafter(array.flat[1], np.float32(99))

    return change


CHANGES: dict[str, tuple[str, Change]] = {
    "a number, by a bit": ("train_loss", _bit("train_loss")),
    "a setting, by a bit": ("lr", _bit("lr")),
    "the sign of a zero": ("zero", _set("zero", -0.0)),
    "a NaN that is a number": ("nan", _set("nan", 0.0)),
    "an infinity that is finite": ("inf", _set("inf", 1e308)),
    "a text": ("note", _set("note", "step 8")),
    "an element, by a bit": ("array", _element("array")),
    "a shape": ("empty", _set("empty", np.empty((2, 0)))),
    "a type": ("whole", _set("whole", np.arange(8, dtype=np.int32))),
    "an element of a pair": ("pair", _element("pair", 0)),
    "a fingerprint": ("large/fingerprint", _set("large/fingerprint", 2**53 - 2 - 7)),
}
