"""SummaryWriter with the methods of torch.utils.tensorboard's. TensorBoard is not needed."""

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from flexrec.recorder.errors import InputError
from flexrec.recorder.events import Array, State, array_of, is_tensor
from flexrec.recorder.integrations.hooked_recorder import Adapter, HookedRecorder, mapping_of
from flexrec.recorder.reduction.reductions import Bins
from flexrec.recorder.writing.opening.place import place

_BINS = Bins()


class SummaryWriter(Adapter):
    """Record what a script gives to torch.utils.tensorboard's SummaryWriter.

        from flexrec import SummaryWriter
        writer = SummaryWriter("runs/first")
        writer.add_scalar("Loss/train", loss, step)

    Tags are the keys. In `log_dir`, each writer has a recording with a name of its own. A
    histogram is recorded as HistogramMeter counts it; images, texts and curves as they are given.
    Without a `global_step`, values are recorded at the current step, and without a `walltime` now.
    Methods of torch's that are not here are accepted; what they were given is not recorded, and a
    warning says so once.

    Args:
        log_dir: the folder; by default one in `runs`, named by the time and the host.
        comment: added to the name of the default folder.
        purge_step: continue the last recording in the folder: what it has at this step or later is
            superseded.
        max_queue, flush_secs, filename_suffix: accepted, and not needed.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: float = 120,
        filename_suffix: str = "",
    ) -> None:
        default = f"runs/{time.strftime('%b%d_%H-%M-%S')}_{socket.gethostname()}{comment}"
        self.log_dir = os.fspath(log_dir or default)
        before = sorted(Path(self.log_dir).glob("*.h5")) if purge_step is not None else []
        self._hooked = HookedRecorder(before[-1] if before else place(f"{self.log_dir}/"))
        if before:
            self._hooked.resume(purge_step)

    def get_logdir(self) -> str:
        """The folder of the recording."""
        return self.log_dir

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: Any = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """Record a number, or an array or tensor of one."""
        if getattr(scalar_value, "ndim", 0):
            scalar_value = scalar_value.squeeze()
        self._add({tag: scalar_value}, global_step, walltime)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Record several numbers, under keys such as `main_tag/tag`."""
        for tag, value in mapping_of("add_scalars", tag_scalar_dict).items():
            self.add_scalar(f"{main_tag}/{tag}", value, global_step, walltime)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: Any = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Record the distribution of an array's elements, for HistogramMeter; it has 64 bins."""
        state = State(_BINS.state_of(_array(tag, values)), _BINS)
        self._add({tag: state}, global_step, walltime)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """Record a picture; `dataformats` says which axis is which."""
        image, axes = _array(tag, img_tensor), dataformats.upper()
        order = [axes.index(axis) for axis in "NCHW" if axis in axes]
        self._add({tag: image.transpose(order)}, global_step, walltime)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """Record a batch of pictures."""
        self.add_image(tag, img_tensor, global_step, walltime, dataformats)

    def add_figure(
        self,
        tag: str,
        figure: Any,
        global_step: Any = None,
        close: bool = True,
        walltime: float | None = None,
    ) -> None:
        """Record a picture of a matplotlib figure, or of several of one size."""
        figures = list(figure) if isinstance(figure, Sequence) else [figure]
        pictures = [_picture(each) for each in figures]
        image = pictures[0] if len(pictures) == 1 else np.stack(pictures)
        self.add_image(tag, image, global_step, walltime, "HWC" if image.ndim == 3 else "NHWC")
        if close:
            from matplotlib import pyplot

            for each in figures:
                pyplot.close(each)

    def add_text(
        self, tag: str, text_string: str, global_step: Any = None, walltime: float | None = None
    ) -> None:
        """Record a text."""
        self._add({tag: text_string}, global_step, walltime)

    def add_tensor(
        self, tag: str, tensor: Any, global_step: Any = None, walltime: float | None = None
    ) -> None:
        """Record a tensor as it is."""
        self._add({tag: tensor}, global_step, walltime)

    def add_pr_curve(
        self,
        tag: str,
        labels: Any,
        predictions: Any,
        global_step: Any = None,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Record (predictions, labels), or with weights all three, for AUCMeter and APMeter."""
        given = [predictions, labels, *([] if weights is None else [weights])]
        self._add({tag: tuple(_array(tag, each).ravel() for each in given)}, global_step, walltime)

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Any = None,
        run_name: str | None = None,
        global_step: Any = None,
    ) -> None:
        """Store hyperparameters in the recording's config, and record the metrics."""
        hparams, metrics = (mapping_of("add_hparams", each) for each in (hparam_dict, metric_dict))
        self._hooked.configure(hparams)
        for tag, value in metrics.items():
            self.add_scalar(tag, value, global_step)

    def flush(self) -> None:
        """Write everything to the disk."""
        self._hooked.flush()

    def close(self) -> None:
        """Close the recording; adding to it opens it again."""
        self._hooked.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("add_"):
            raise AttributeError(f"a SummaryWriter has no {name}", name=name, obj=self)

        def leave_out(*_: Any, **__: Any) -> None:
            self._hooked.warn_once(name, f"{name}: flexrec cannot record this; it is left out")

        return leave_out

    def _add(self, values: dict[str, Any], step: Any, walltime: float | None) -> None:
        self._hooked.add(values, None if step is None else _step(step), walltime)


def _step(step: Any) -> int:
    try:
        return int(step)
    except (OverflowError, TypeError, ValueError):
        raise InputError(f"global_step is {step!r}; a step is an integer") from None


def _array(tag: str, value: Any) -> Array:
    return array_of(tag, value) if is_tensor(value) else np.asarray(value)


def _picture(figure: Any) -> Array:
    """A figure's pixels (H, W, 3); TensorBoard has no transparency either."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not isinstance(figure, Figure):
        kind = type(figure).__name__
        raise InputError(f"add_figure takes figures of matplotlib; it was given a {kind}")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
