"""What the tests of the adapters share: data, a model, and a training that is killed."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flexrec.recorder import Recording
from support.crashing import killed

__all__ = [
    "BATCHES",
    "Net",
    "data",
    "die",
    "killed_while",
    "numbers",
    "page_blocks",
    "run_documented",
    "weights",
]

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"

BATCHES = 4  # of an epoch


def data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of an epoch: features (5, 4) and targets (5, 1)."""
    chance = torch.Generator().manual_seed(7)
    found = [torch.randn(5, 4, generator=chance) for _ in range(BATCHES)]
    return [(x, x.sum(1, keepdim=True)) for x in found]


class Net(nn.Module):
    """Two layers in a part of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(x)
        return found


def weights(model: nn.Module) -> bytes:
    """A model's parameters, to the bit."""
    return b"".join(each.detach().numpy().tobytes() for each in model.parameters())


def numbers(path: Path, *but: str) -> dict[str, list[tuple[int, float]]]:
    """The steps and values of a recording's keys, except those named."""
    with Recording(path) as run:
        return {
            key: list(zip(series.step.tolist(), np.asarray(series.value).tolist(), strict=True))
            for key, series in run.series(key for key in run if key not in but).items()
        }


def die() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed_while(work: Callable[[], object]) -> None:
    """Do the work in a process that it kills."""

    def do(tell: Callable[[int], None]) -> None:
        work()
        tell(1)

    assert killed(do) == -1, "it was not killed"


def run_documented(framework: str, names: dict[str, Any]) -> Any:
    """Run the two lines that the page has for a framework; return what the second gives.

    Args:
        framework: its name in the page's table.
        names: what the script has already. What the page leaves out (`…`) is left out here, too.
    """
    (line,) = re.findall(rf"^\| {framework} \| `(.+?)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    module = framework.split(",")[0].lower()
    adapters = ", ".join(sorted({*re.findall(r"Flexrec\w+", line)}))
    lines = f"from flexrec.recorder.integrations.{module} import {adapters}"
    exec(lines, names)  # noqa: S102 - our own document
    return eval(line.replace("…, ", ""), names)  # noqa: S307 - our own document


def page_blocks() -> list[str]:
    """The page's blocks of Python."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
