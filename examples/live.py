"""Plot live while training, as with TNT's visdom loggers, and record at the same time.

    python examples/live.py --port 8097

Without a server it warns once, trains on, and the recording has everything.
"""

import argparse

import torch
from torch import nn

from flexrec.recorder import Recorder
from flexrec.replay import TooledModelLogger, get_preset_logger


def train(out: str, *, port: int, env: str, epochs: int) -> None:
    """Fit a noisy line, plotting the loss at every epoch and a chart for each layer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.linspace(-1, 1, 64)[:, None]
    y = torch.sin(3 * x) + 0.1 * torch.randn(64, 1)
    with Recorder(out, mode="w") as rec:
        logger = get_preset_logger("loss+MSE", env=env, port=port, recorder=rec)
        layers = TooledModelLogger(model, mode="by_layer", env=f"{env}_layers", port=port)
        for epoch in range(epochs):
            for batch in torch.randperm(64).split(16):
                optimizer.zero_grad()
                output = model(x[batch])
                loss = nn.functional.mse_loss(output, y[batch])
                loss.backward()
                optimizer.step()
                logger.add({"train_loss": loss, "train_mse": (output, y[batch])})
                logger.step()
                layers.step(log=True)
            logger.log(epoch=epoch)
        layers.close()
        logger.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", default="live.h5", help="the recording to make")
    parser.add_argument("--port", type=int, default=8097, help="where visdom listens")
    parser.add_argument("--env", default="live", help="visdom's environment")
    parser.add_argument("--epochs", type=int, default=10)
    chosen = parser.parse_args()
    train(chosen.out, port=chosen.port, env=chosen.env, epochs=chosen.epochs)
