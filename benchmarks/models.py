"""The models that benchmarks train, small enough for a laptop: nothing is timed here."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["TASKS", "Task"]


class Task(NamedTuple):
    """A model, a batch for it, and the loss of its output."""

    model: nn.Module
    batch: Tensor
    loss: Callable[[Tensor], Tensor]


def mlp() -> Task:
    """784-512-512-10, batch 128."""
    model = nn.Sequential(
        nn.Linear(784, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )
    return Task(model, torch.randn(128, 784), _classes(128, 10))


def lenet() -> Task:
    """LeNet-5 for 28 by 28 digits, batch 128."""
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )
    return Task(model, torch.randn(128, 1, 28, 28), _classes(128, 10))


class _Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()
        self.around = nn.Sequential()
        if stride != 1 or channels != out:
            self.around = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return torch.relu(inner + self.around(x))


def resnet18() -> Task:
    """ResNet-18 for 32 by 32 images, batch 8."""
    widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    blocks = [
        block
        for channels, out, stride in widths
        for block in (_Residual(channels, out, stride), _Residual(out, out, 1))
    ]
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, 1, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    return Task(model, torch.randn(8, 3, 32, 32), _classes(8, 10))


class _Block(nn.Module):
    """Causal self-attention and a perceptron, each normalised before and added after."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.gelu, self.down = (
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        heads = self.qkv(self.norm1(x)).view(batch, time, 3, self.heads, width // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(self.gelu(self.up(self.norm2(x))))


class _GPT(nn.Module):
    def __init__(self, vocabulary: int, context: int, width: int, depth: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(_Block(width, 8) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x)))


def gpt() -> Task:
    """Six layers of width 256 over a context of 128 characters, batch 8."""
    tokens = torch.randint(0, 256, (8, 128))
    target = tokens.roll(-1, 1).flatten()

    def loss(logits: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.flatten(0, 1), target)

    return Task(_GPT(256, 128, 256, 6), tokens, loss)


def _classes(batch: int, classes: int) -> Callable[[Tensor], Tensor]:
    target = torch.randint(0, classes, (batch,))
    return lambda logits: nn.functional.cross_entropy(logits, target)


TASKS: dict[str, Callable[[], Task]] = {
    "MLP": mlp,
    "LeNet": lenet,
    "ResNet-18": resnet18,
    "GPT": gpt,
}
"""Makers of the tasks, by the name that tables show."""
