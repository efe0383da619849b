"""Test training itself: keep what a short run computes beside its test, and compare from then on.

    pytest examples/test_training.py                  # compare
    pytest examples/test_training.py --run-update     # accept what the runs compute now

The goldens lie beside this file, in goldens/test_training/. They are text: `git diff` shows at
which step a run changed, and in which key.
"""

from pathlib import Path

import torch

from flexrec.recorder import Recorder
from flexrec.replay.golden.pytest_plugin import RunCheck


def test_to_the_bit(run_check: RunCheck, tmp_path: Path) -> None:
    """Plain arithmetic gives the same bits on every machine."""
    weight, lr = 1.0, 0.05
    with Recorder(tmp_path / "run.h5") as rec:
        for _ in range(20):
            rec.add(train_loss=weight**2, weight=weight)
            weight -= lr * 2 * weight
            rec.step()
    run_check(tmp_path / "run.h5")


def test_a_model(run_check: RunCheck, tmp_path: Path) -> None:
    """Kernels differ from machine to machine in their last bits: within a tolerance."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with Recorder(tmp_path / "run.h5", config={"lr": 0.05}) as rec:
        rec.watch(model, optimizer=optimizer)
        for x in torch.randn(40, 32, 8):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
            loss.backward()
            optimizer.step()
            rec.add(train_loss=loss)
            rec.step()
    run_check(tmp_path / "run.h5", rtol=1e-3, atol=1e-5)
