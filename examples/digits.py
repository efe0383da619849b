"""Train a small network on real handwritten digits, and record the run.

    python examples/digits.py --out run.h5
    flexrec replay run.h5 --preset loss+MSE

The 1,797 digits come with scikit-learn: nothing is downloaded.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from flexrec.recorder import Recorder


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test images (n, 64), scaled to 0…1, with their classes (n,)."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).reshape(-1, 64) / 16
    classes = torch.tensor(data.target)
    order = torch.randperm(len(images))
    train, test = order[:1440], order[1440:]
    return (images[train], classes[train]), (images[test], classes[test])


def train(out: str, *, epochs: int, mode: str = "x", lr: float = 0.05, seed: int = 0) -> None:
    """Train for some epochs, recording metrics, pairs and layer statistics to `out`."""
    torch.manual_seed(seed)
    training, test = digits()
    model = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    config = {"epochs": epochs, "lr": lr, "batch": 32, "seed": seed}
    with Recorder(out, mode="w" if mode == "w" else "x", config=config) as rec:
        rec.watch(model, every=5)
        for epoch in range(epochs):
            model.train()
            for batch in torch.randperm(len(training[0])).split(32):
                images, classes = training[0][batch], training[1][batch]
                optimizer.zero_grad()
                output = model(images)
                loss = cross_entropy(output, classes)
                loss.backward()
                optimizer.step()
                record(rec, "train", loss, output, classes)
                rec.add(lr=lr)
                rec.step()
            model.eval()
            with torch.no_grad():
                output = model(test[0])
                record(rec, "test", cross_entropy(output, test[1]), output, test[1])
                rec.add({"test_confusion": (output, test[1])})
            rec.log(epoch=epoch)


def record(rec: Recorder, phase: str, loss: Tensor, output: Tensor, classes: Tensor) -> None:
    """Record the loss as a number, and pairs from which any meter can be chosen later."""
    rec.add(
        {
            f"{phase}_loss": loss,
            f"{phase}_mse": (output.softmax(1), one_hot(classes, 10).float()),
            f"{phase}_acc": (output, classes),
        }
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", default="run.h5", help="the recording to make")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing recording")
    chosen = parser.parse_args()
    train(
        chosen.out,
        epochs=chosen.epochs,
        mode="w" if chosen.overwrite else "x",
        seed=chosen.seed,
    )
    print(f"recorded {chosen.out}; now: flexrec replay {chosen.out} --preset loss+MSE")
