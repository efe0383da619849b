"""The information plane of a small tanh network, after Shwartz-Ziv and Tishby (arXiv 1703.00810).

    python examples/infoplane.py --out infoplane.h5
    flexrec replay infoplane.h5 --preset infoplane+snr+loss

As in the paper, X is all 4096 inputs of 12 bits, and Y a bit that depends on X through a symmetric
function; the network is 12-10-7-5-4-3-2 with tanh. How much each layer knows of X and of Y is
worked out at replay, from the activations on all inputs that were recorded at some epochs.
"""

import argparse
from itertools import pairwise

import torch
from torch import Tensor, nn

from flexrec.recorder import Recorder


def task(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """All inputs (4096, 12) of −1 and 1, and their classes (4096,), half of them 1.

    The class depends on pairs of inputs that lie opposite each other on a ring, through a random
    quadratic form that does not change when all signs do: no input alone tells anything of it.
    """
    bits = torch.arange(4096)[:, None] >> torch.arange(12) & 1
    signs = 2.0 * bits - 1
    couplings = torch.randn(12, generator=generator)
    energy = sum(couplings[k] * (signs * signs.roll(k + 1, 1)).sum(1) for k in range(6))
    assert isinstance(energy, Tensor)
    return signs, (energy > energy.median()).long()


def network() -> nn.Sequential:
    """12-10-7-5-4-3-2, tanh between and softmax in the loss."""
    sizes = (12, 10, 7, 5, 4, 3)
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 2))


def train(out: str, *, epochs: int, marks: int, mode: str = "x", seed: int = 0) -> None:
    """Train on 85 % of the inputs; record activations at about `marks` epochs, evenly in log."""
    torch.manual_seed(seed)
    inputs, classes = task(torch.Generator().manual_seed(seed))
    chosen = torch.randperm(4096)[: int(0.85 * 4096)]
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    when = {round(epochs ** (i / marks)) for i in range(marks + 1)}
    with Recorder(out, mode="w" if mode == "w" else "x", config={"epochs": epochs}) as rec:
        tooled = rec.watch(model, stats=("snr", "signal", "noise"), layers=nn_linear)
        for epoch in range(1, epochs + 1):
            for batch in chosen[torch.randperm(len(chosen))].split(256):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs[batch]), classes[batch])
                loss.backward()
                optimizer.step()
                rec.add(train_loss=loss)
                rec.step()
            if epoch in when:
                rec.activations(model, inputs, classes, layers=nn_tanh)
                rec.log(epoch=epoch)
            tooled.reset()


def nn_linear(_: str, module: nn.Module) -> bool:
    """Choose the layers that have weights."""
    return isinstance(module, nn.Linear)


def nn_tanh(_: str, module: nn.Module) -> bool:
    """Choose the hidden layers' activations."""
    return isinstance(module, nn.Tanh)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", default="infoplane.h5", help="the recording to make")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--marks", type=int, default=25, help="at how many epochs to look")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing recording")
    chosen_options = parser.parse_args()
    train(
        chosen_options.out,
        epochs=chosen_options.epochs,
        marks=chosen_options.marks,
        mode="w" if chosen_options.overwrite else "x",
    )
    print(f"now: flexrec replay {chosen_options.out} --preset infoplane+snr+loss")
