"""Test what people see: a training run's plots against goldens, live and from its recording.

    pytest examples/test_plots.py                  # compare
    pytest examples/test_plots.py --plot-update    # accept what the plots show now

The goldens lie beside this file, in goldens/test_plots/; visdom shows them too.
"""

from pathlib import Path

import pytest

from flexrec.recorder import Recorder
from flexrec.replay import FlexLogger, get_preset_logger
from flexrec.replay.golden.pytest_plugin import PlotCheck
from flexrec.replay.sinks.base import ListSink


def train(logger: Recorder | FlexLogger, *, lr: float) -> None:
    """Walk down a parabola."""
    weight = 1.0
    for epoch in range(5):
        for _ in range(4):
            loss = weight**2
            weight -= lr * 2 * weight
            logger.add({"train_loss": loss})
        logger.add({"test_loss": (weight + 0.1) ** 2})
        logger.log(epoch)


def test_recorded(plot_check: PlotCheck, tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5") as rec:
        train(rec, lr=0.05)
    plot_check(tmp_path / "run.h5", preset="loss", rtol=1e-6)


@pytest.mark.parametrize("lr", [0.05, 0.2])
def test_live(plot_check: PlotCheck, lr: float) -> None:
    logger = get_preset_logger("loss", sink=ListSink())  # no server is needed
    train(logger, lr=lr)
    plot_check(logger, rtol=1e-6)
