"""Read arrays and strings of varying shapes from a dataset of elements.

Shapes and offsets are untrusted: `sizes_fit` and `end_to_end` check them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flexrec.recorder.errors import DamagedError
from flexrec.recorder.events import LARGEST, Array
from flexrec.recorder.storage import format as fmt

Ints = NDArray[np.int64]

RUN_BYTES = 8 << 20
"""Approximate number of bytes of neighbouring arrays that are read at once."""

_GAP_BYTES = 1 << 16  # largest gap between arrays that are read at once


class Elements(Protocol):
    """The dataset of the arrays' elements: an UntrustedDataset or a JournalledDataset."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of an element."""

    def __getitem__(self, rows: slice) -> Array:
        """A copy of the elements `first:last`."""

    def damaged(self, what: str) -> DamagedError:
        """A DamagedError that names the file; `what` says what is wrong in it."""


@dataclass
class ArrayColumn:
    """Arrays of one dtype and rank but varying shapes, read when they are iterated over."""

    source: Elements
    form: fmt.Form
    offsets: Ints  # in elements of `source`; in bytes if it is the dataset of blobs
    shapes: Ints  # (n, ndim)
    is_kept: bool = False  # whether all arrays are kept in memory after the first iteration
    _kept: list[str | Array] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[str | Array]:
        if not self.is_kept:
            return self._read()
        if self._kept is None:
            self._kept = list(self._read())
        return iter(self._kept)

    def _read(self) -> Iterator[str | Array]:
        for piece, shape in zip(self.flat(), self.shapes.tolist(), strict=True):
            if self.form.kind == fmt.TEXT:
                yield self._text(piece.tobytes())
            else:
                yield piece.reshape(shape).copy()

    def _text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise self.source.damaged(f"a text is not UTF-8: {error!s:.80}") from error

    @property
    def size(self) -> int:
        """The total number of elements of the arrays."""
        return int(self.shapes.prod(axis=1).sum())

    @property
    def nbytes(self) -> int:
        """The total size of the arrays in bytes."""
        return self.size * self.form.dtype.itemsize

    def flat(self, run_bytes: int = RUN_BYTES) -> Iterator[Array]:
        """Iterate over the arrays, flattened, as views of larger pieces that were read at once."""
        counts = self.shapes.prod(axis=1) * (self.form.dtype.itemsize // self._unit)
        for first, last in self._runs(counts, run_bytes):
            low = int(self.offsets[first])
            data = self.source[low : int(self.offsets[last - 1] + counts[last - 1])]
            for i in range(first, last):
                start = int(self.offsets[i]) - low
                yield data[start : start + int(counts[i])].view(self.form.dtype)

    @property
    def _unit(self) -> int:
        return int(self.source.dtype.itemsize)

    def _runs(self, counts: Ints, run_bytes: int) -> Iterator[tuple[int, int]]:
        """Split the arrays into runs of neighbours to read at once."""
        ends = self.offsets + counts
        gaps = (self.offsets[1:] - ends[:-1]) * self._unit
        first, n = 0, len(ends)
        for i in range(1, n + 1):
            if (
                i == n
                or not 0 <= gaps[i - 1] <= _GAP_BYTES
                or (ends[i] - self.offsets[first]) * self._unit > run_bytes
            ):
                yield first, i
                first = i


def sizes_fit(rows: NDArray[np.float64], form: fmt.Form, available: int) -> NDArray[np.bool_]:
    """Check which offsets and shapes are integers that stay within the blobs.

    Args:
        rows: (n, 1 + rank) an offset in bytes and a shape in each row.
        form: the form of the arrays.
        available: the size of the blobs in bytes.
    """
    # In floating point, because the product of forged shapes must not wrap around.
    with np.errstate(invalid="ignore", over="ignore"):
        whole = ((rows >= 0) & (rows < LARGEST) & (rows == np.floor(rows))).all(axis=1)
        # numpy limits the axes of empty arrays too.
        widths = np.maximum(rows[:, 1:], 1).prod(axis=1) * form.dtype.itemsize
        ends = rows[:, 0] + rows[:, 1:].prod(axis=1) * form.dtype.itemsize
        fit: NDArray[np.bool_] = whole & (widths < LARGEST) & (ends <= available)
    return fit


def end_to_end(shapes: Ints, form: fmt.Form, available: int) -> Ints:
    """The offset of each array, if they lie end to end and fill all elements.

    Raises:
        ValueError: they do not, or a shape is impossible.
    """
    sized = np.concatenate([np.zeros((len(shapes), 1)), shapes], axis=1)
    if not sizes_fit(sized, form, available * form.dtype.itemsize).all():
        raise ValueError("an array's shape is impossible")
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(shapes.prod(axis=1))])
    # The sum cannot overflow unnoticed: no array is larger than all of the elements.
    if (np.diff(offsets) < 0).any() or offsets[-1] != available:
        raise ValueError("the arrays' shapes do not fit their elements")
    return offsets
