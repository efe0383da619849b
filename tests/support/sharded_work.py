"""One rank of trainings whose parameters are in shards: `sharded_work.py RANK FOLDER`.

In the first two another rank watches each; it writes what it found of them to FOLDER/RANK.json. The
third one is recorded by all ranks, to FOLDER/run-RANK.h5.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

from flexrec.recorder import Recorder, TooledModel
from flexrec.recorder.layers.measuring.statistics import SOURCES, STATISTICS

RANKS = 2


def spread(tensor: Tensor) -> Tensor:
    """A statistic of the caller's own."""
    return tensor.max() - tensor.min()


def part(tensor: Any) -> Tensor:
    """What this rank holds."""
    held: Tensor = tensor.detach().to_local()
    return held


def recorded(path: Path, *, shards: bool) -> None:
    """Record a training of the same model, sharded or not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 1))
    for layer in (model[0], model[2], model) if shards else ():
        fully_shard(layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(path) as rec:
        rec.watch(model, sources=SOURCES[4:], stats=list(STATISTICS))
        for step in range(3):
            x = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            rec.add(loss=loss)
            rec.step()
        rec.log()


def train(watch: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 1))
    for layer in (model[0], model[2], model):
        fully_shard(layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stats: list[Any] = [*STATISTICS, torch.var, spread]
    tooled = TooledModel(model, SOURCES, stats) if watch else None
    losses, values, parts = [], dict[str, Any](), list[Tensor]()
    for step in range(3):
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        before = [part(p).clone() for p in model.parameters()]
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if tooled is not None:
            values = tooled.step()
        after = [part(p) for p in model.parameters()]
        gradients = [part(p.grad) for p in model.parameters()]
        parts = [after[0], gradients[0], after[0] - before[0]]
    return {
        "losses": losses,
        "values": {k: v if isinstance(v, float) else v.tolist() for k, v in values.items()},
        "norms": [held.norm().item() for held in parts],
        "spreads": [spread(held).item() for held in parts],
        "size": parts[0].numel(),
    }


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=RANKS
    )
    found = [train(watch=rank == watching) for watching in range(RANKS)]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    recorded(folder / f"run-{rank}.h5", shards=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
