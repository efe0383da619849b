"""Loops as people write them: watching changes no bit of them, and each layer is recorded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from flexrec.recorder import Recorder, Recording
from support.recorders import recorder

STATS = ("mean", "std", "norm", "snr", "dead", "fingerprint")
Optimizer = torch.optim.Optimizer
Watch = Callable[[nn.Module, Optimizer, str], None]
Step = Callable[[], None]
Trained = tuple[list[torch.Tensor], list[nn.Module]]
Loop = Callable[[Watch, Step], Trained]


def critic_with_gradient_penalty(watch: Watch, step: Step) -> Trained:
    """A gradient of a gradient, two optimizers, and the generator's step at every second batch."""
    generator = nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.LeakyReLU(0.2), nn.Linear(8, 4)
    )
    critic = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2, inplace=True), nn.Linear(8, 1))
    for_generator = torch.optim.Adam(generator.parameters(), lr=1e-2)
    for_critic = torch.optim.Adam(critic.parameters(), lr=1e-2)
    watch(generator, for_generator, "generator")
    watch(critic, for_critic, "critic")
    losses = []
    for i in range(6):
        real, noise = torch.randn(5, 4), torch.randn(5, 3)
        for_critic.zero_grad()
        fake = generator(noise)
        between = (real + torch.rand(5, 1) * (fake - real)).detach().requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        penalty = ((slope.norm(dim=1) - 1) ** 2).mean()
        loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
        loss.backward()
        for_critic.step()
        for_generator.zero_grad()
        if i % 2 == 0:
            (-critic(generator(noise)).mean()).backward()
            for_generator.step()
        losses.append(loss)
        step()
    return losses, [generator, critic]


class Recurrent(nn.Module):
    """A hidden state goes in and out, and the decoder has the embedding's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.rnn = nn.LSTM(6, 6, 2, dropout=0.1)
        self.decoder = nn.Linear(6, 10, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(
        self, tokens: torch.Tensor, hidden: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        found, after = self.rnn(self.embedding(tokens), hidden)
        return self.decoder(found), after


def truncated_backpropagation(watch: Watch, step: Step) -> Trained:
    """The hidden state is detached, gradients are clipped and accumulated over two batches."""
    model = Recurrent()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    watch(model, optimizer, "")
    hidden = (torch.zeros(2, 4, 6), torch.zeros(2, 4, 6))
    losses = []
    for i in range(8):
        tokens = torch.randint(10, (7, 4))
        output, after = model(tokens[:-1], hidden)
        hidden = tuple(state.detach() for state in after)
        loss = nn.functional.cross_entropy(output.flatten(0, 1), tokens[1:].flatten())
        (loss / 2).backward()
        if i % 2:
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step()
        losses.append(loss)
    return losses, [model]


class Parts(nn.Module):
    """Only its parts are called."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 2)
        self.decode = nn.Linear(2, 4)


def parts_are_called_and_evaluated(watch: Watch, step: Step) -> Trained:
    """An evaluation without gradients between steps; zero_grad comes after the forward."""
    model = Parts()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    watch(model, optimizer, "")
    losses = []
    for _ in range(5):
        x = torch.randn(6, 4)
        loss = (model.decode(model.encode(x)) - x).square().mean()
        model.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            losses.append(model.decode(model.encode(x)).sum())
        model.train()
        losses.append(loss)
        step()
    return losses, [model]


def closures(watch: Watch, step: Step) -> Trained:
    """LBFGS calls the model several times in a step."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    watch(model, optimizer, "")
    x, losses = torch.randn(8, 3), []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        return loss

    for _ in range(4):
        losses.append(optimizer.step(closure))
        step()
    return losses, [model]


LOOPS: list[Loop] = [
    critic_with_gradient_penalty,
    truncated_backpropagation,
    parts_are_called_and_evaluated,
    closures,
]


def run(loop: Loop, rec: Recorder | None, *, trace: bool = False) -> list[list[str]]:
    """The losses and the trained weights, as texts that tell every bit."""
    torch.manual_seed(0)

    def watch(model: nn.Module, optimizer: Optimizer, name: str) -> None:
        if rec is not None:
            rec.watch(model, optimizer=optimizer, name=name, stats=STATS, trace=trace)

    losses, models = loop(watch, rec.step if rec is not None else lambda: None)
    found = [float(loss.detach()).hex() for loss in losses]
    return [found] + [
        [float(value).hex() for value in weights.detach().flatten()]
        for model in models
        for weights in model.parameters()
    ]


@pytest.mark.parametrize("trace", [False, True], ids=["", "trace"])
@pytest.mark.parametrize("loop", LOOPS)
def test_watching_changes_no_bit_of_a_loop(loop: Loop, trace: bool, path: Path) -> None:
    plain = run(loop, None)
    with recorder(path) as rec:
        assert run(loop, rec, trace=trace) == plain
    with Recording(path) as recording:
        recorded = {key.split("/")[0] for key in recording}
        models = recording.models or {}
    layers = [item for found in models.values() for item in found.items()]
    trained = [name for name, layer in layers if layer["parameters"]]
    assert trained, "layers with parameters"
    assert {*trained} <= recorded
