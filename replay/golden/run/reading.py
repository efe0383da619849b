"""Read what a golden holds of a run from a recording."""

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import GoldenError, RecordingError, listed
from flexrec.recorder.files.names import ON_ACCELERATOR, is_fingerprint
from flexrec.recorder.layers.tracing.format import KEYS, VALUES
from flexrec.recorder.recording import Recording
from flexrec.replay.diff.blame.places import is_of_the_clock
from flexrec.replay.golden.run.kept import TRACE, Cell, Cells, KeptRun, Plain, code_of

MOST = 1_000_000
"""The most values of a run that a golden is made of."""

_PACKAGES = ("numpy", "torch")  # that compute
_PROCESSOR = re.compile(r"x86_64|amd64|aarch64|arm64|ppc64le|riscv64|s390x", re.IGNORECASE)
_SHORT = 60  # characters of a text that are kept
_FEW = 8  # values of a key at one step that are kept one by one
_RMS_DIGITS = 9  # sums are rounded otherwise on other machines


def kept_of(recording: Recording, keys: str | Sequence[str] = ()) -> KeptRun:
    """Read the values of a run, with the codes of their bits.

    Args:
        recording: the recording.
        keys: a name or pattern of keys, or several; by default all but those that measure time.

    Raises:
        RecordingError: it has no key that `keys` names, or none at all.
        GoldenError: it has too many values.
    """
    chosen = _chosen(recording, [keys] if isinstance(keys, str) else keys)
    counts = recording.counts()
    amount = sum(counts[key] for key in chosen)
    if amount > MOST:
        raise GoldenError(
            f"{recording.path} has {amount:,} values, and a golden is made of {MOST:,} at most: "
            "choose keys, or train for fewer steps"
        )
    cells = {TRACE if key == VALUES else key: _cells(recording, key) for key in chosen}
    return KeptRun(recording.path.name, cells, recording.config, _facts(recording))


def _chosen(recording: Recording, patterns: Sequence[str]) -> list[str]:
    known = [key for key in recording if key == VALUES or key not in KEYS]
    if not patterns:
        chosen = [key for key in known if not is_of_the_clock(key)]
        if not chosen:
            raise RecordingError(f"{recording.path} has no values to keep")
        return chosen
    for pattern in patterns:
        if not any(fnmatchcase(key, pattern) for key in known):
            raise RecordingError(
                f"{recording.path} has no key that fits {pattern!r}; there are {listed(known)}"
            )
    return [key for key in known if any(fnmatchcase(key, pattern) for pattern in patterns)]


def _cells(recording: Recording, key: str) -> Cells:
    found: dict[int, list[Any]] = {}
    for step, value in _values(recording, key):
        found.setdefault(step, []).append(value)
    return {step: _cell(found[step], key) for step in sorted(found)}


def _values(recording: Recording, key: str) -> Iterator[tuple[int, Any]]:
    if recording.is_number(key):
        series = recording[key]
        return zip(series.step.tolist(), series.value.tolist(), strict=True)
    return ((row.step, row.value) for row in recording.rows(key))


def _cell(values: list[Any], key: str) -> Cell:
    if len(values) > _FEW and all(isinstance(value, float) for value in values):
        values = [np.array(values)]
    plain = tuple(_plain(value, key) for value in values)
    return Cell(code_of(plain), plain)


def _plain(value: Any, key: str) -> Plain:
    if isinstance(value, np.ndarray):
        return _fingerprints(value) if key == VALUES or is_fingerprint(key) else _array(value)
    if isinstance(value, tuple):
        return {"parts": [_plain(part, key) for part in value]}
    if isinstance(value, str):
        short = value if len(value) <= _SHORT else f"{value[:_SHORT]}… {_crc(value.encode())}"
        return {"text": short}
    return float(value)


def _fingerprints(value: NDArray[Any]) -> dict[str, Any]:
    are_of_accelerator = (value >= ON_ACCELERATOR) & (value < 2 * ON_ACCELERATOR)
    count = int(np.count_nonzero(are_of_accelerator))
    of_bits = {value.dtype.name: list(value.shape), "bits": _bits(value)}
    return of_bits | ({"accelerator": count} if count else {})


def _array(value: NDArray[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {value.dtype.name: list(value.shape)}
    if value.dtype.kind in "fiub":
        with np.errstate(over="ignore", invalid="ignore"):
            rms = math.sqrt(np.square(value, dtype=np.float64).mean()) if value.size else 0.0
        found["rms"] = float(f"{rms:.{_RMS_DIGITS}g}")
    return {**found, "bits": _bits(value)}


def _bits(value: NDArray[Any]) -> str:
    return _crc(np.ascontiguousarray(value).tobytes())


def _crc(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"


def _facts(recording: Recording) -> dict[str, Any]:
    """What the numbers of a run may depend on."""
    facts = recording.facts or {}
    found: dict[str, Any] = {n: facts[n] for n in ("python", "numerics") if n in facts}
    if "platform" in facts:  # without the kernel's version
        processor = _PROCESSOR.search(str(facts["platform"]))
        system = str(facts["platform"]).partition("-")[0]
        found["platform"] = f"{system}-{processor[0]}" if processor else system
    packages = dict(facts.get("packages", {}))
    return found | {name: packages[name] for name in _PACKAGES if name in packages}
