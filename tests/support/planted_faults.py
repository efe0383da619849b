"""Small models that are trained with a fault planted in them, and what is to be found of it.

A fault is switched on by its name: the models' own code, and the training loop, ask `on`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from flexrec.recorder import Recorder

AT, STEPS = 3, 6


class Switch:
    """Which fault is on, and at which step training is."""

    fault, step = "", 0

    def __call__(self, name: str, *, from_the_start: bool = False) -> bool:
        return self.fault == name and (from_the_start or self.step >= AT)


on = Switch()


class MLP(nn.Module):
    """With BatchNorm and Dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.f0, self.bn0, self.d0 = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.1)
        self.f1, self.bn1, self.d1 = nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.1)
        self.r0, self.r1 = nn.ReLU(inplace=True), nn.LeakyReLU(0.1)
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.f1(self.d0(self.r0(self.bn0(self.f0(x))))))
        if on("extra_rand"):
            torch.rand(1)
        x = self.d1(self.r1(x))
        x = torch.tanh(x) * (1 + (1e-6 if on("functional") else 0))
        return self.out(x)


class Residual(nn.Module):
    """A block of convolutions, and a connection around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn, self.relu = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.drop = nn.Dropout(0.1)
        self.is_last = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        if on("inplace_bug") and not self.is_last:
            x.data.mul_(1 + 1e-6)
        y = self.drop(self.conv2(self.relu(self.bn(y))))
        return x * (1 + (1e-6 if on("residual_scale") and not self.is_last else 0)) + y


class CNN(nn.Module):
    """With a layer that is used twice, and a block that runs again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block1 = nn.Conv2d(1, 4, 3, padding=1), Residual(4)
        self.shared, self.pool, self.block2 = nn.Conv2d(4, 4, 1), nn.AvgPool2d(2), Residual(4)
        self.head = nn.Linear(64, 3)
        self.block2.is_last = True

    def forward(self, x: Tensor) -> Tensor:
        x = self.block1(functional.relu(self.stem(x)))
        x = self.shared(functional.relu(self.shared(x)))
        keeps = not on("checkpoint_rng")
        x = checkpoint(self.block2, self.pool(x), use_reentrant=False, preserve_rng_state=keeps)
        return self.head(x.flatten(1))


class Block(nn.Module):
    """Of a GPT."""

    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.n1, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.proj, self.n2 = nn.Linear(width, width), nn.LayerNorm(width)
        self.up, self.act = nn.Linear(width, 2 * width), nn.GELU()
        self.down = nn.Linear(2 * width, width)
        self.scale, self.number = 0.5, number

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(self.n1(x)).view(n, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
        causal = not (on("mask") and self.number == 1)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        attended = attended.transpose(1, 2).reshape(n, t, d)
        kept = x.detach() if on("detach_skip") and self.number == 0 else x
        x = kept + self.proj(attended) * self.scale
        return x + self.down(self.act(self.up(self.n2(x))))


class GPT(nn.Module):
    """With tied weights."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(20, width), nn.Embedding(13, width)
        self.blocks = nn.ModuleList(Block(width, i) for i in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 20, bias=False)
        tied = not on("untied", from_the_start=True)
        self.head.weight = self.tok.weight if tied else nn.Parameter(self.tok.weight.detach())

    def forward(self, i: Tensor) -> Tensor:
        places = torch.arange(i.shape[1]) + (1 if on("positions") else 0)
        x = self.tok(i) + self.pos(places)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class LSTM(nn.Module):
    """Over sequences of letters."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.lstm = nn.Embedding(20, 8), nn.LSTM(8, 12, batch_first=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, i: Tensor) -> Tensor:
        x = self.emb(i)
        start = (torch.full((1, len(i), 12), 1e-3), torch.zeros(1, len(i), 12))
        y, _ = self.lstm(x, start) if on("hidden") else self.lstm(x)
        return self.fc(y[:, 1:].mean(1) if on("pooling") else y.sum(1) / 7)


class Attention(nn.Module):
    """With layers of torch's that draw random numbers in their own code."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.fc = nn.Embedding(20, 8), nn.Linear(8, 3)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True)

    def forward(self, i: Tensor) -> Tensor:
        x = self.emb(i)
        if on("noise_before"):
            torch.randn_like(x)
        x = functional.dropout(self.encoder(x).mean(1), 0.1, self.training)
        return self.fc(x * (1 + (1e-6 if on("after_dropout") else 0)))


@dataclass(frozen=True)
class Fault:
    """A fault, and what is to be found: the step, the stage, and the layers of which any is right.

    Attributes:
        at: the step at which it shows.
        layers: None: no layer is blamed.
        change: done to the model and optimizer once, before step `AT`.
    """

    name: str
    model: str
    stage: str
    layers: tuple[str | None, ...] = (None,)
    at: int = AT
    change: Callable[[Any, torch.optim.Optimizer], object] | None = None


def _set(path: str, name: str, value: object) -> Callable[[Any, Any], None]:
    return lambda model, _: setattr(model.get_submodule(path), name, value)


def _group(name: str, value: object) -> Callable[[Any, Any], None]:
    return lambda _, optimizer: optimizer.param_groups[0].update({name: value})


def _scaled(path: str, by: float = 1 + 1e-6) -> Callable[[Any, Any], None]:
    return lambda model, _: model.get_parameter(path).data.mul_(by)


def _hooked(path: str) -> Callable[[Any, Any], None]:
    return lambda model, _: model.get_submodule(path).register_forward_hook(
        lambda _m, _i, output: output * (1 + 1e-6)
    )


def _hooked_gradient(path: str) -> Callable[[Any, Any], None]:
    return lambda model, _: model.get_parameter(path).register_hook(lambda g: g * (1 + 1e-6))


def _in_bfloat16(model: Any, _: Any) -> None:
    layer = model.f1
    layer.forward = lambda x: functional.linear(
        x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()
    ).float()


def _more_threads(model: Any, optimizer: Any) -> None:
    """Other sums: how many threads round otherwise differs from machine to machine."""
    torch.set_num_threads(torch.get_num_threads() + 1)
    _hooked("block1.conv2")(model, optimizer)


FAULTS = [
    Fault("bn_eps", "mlp", "forward", ("bn1",), change=_set("bn1", "eps", 2e-5)),
    Fault("bn_momentum", "mlp", "weights", ("bn0",), change=_set("bn0", "momentum", 0.2)),
    Fault("bn_eval", "mlp", "forward", ("bn1",), change=lambda m, _: m.bn1.eval()),
    Fault("dropout_p", "mlp", "forward", ("d1",), change=_set("d1", "p", 0.12)),
    Fault("dropout_seed", "mlp", "data", ("d0",), change=lambda *_: torch.manual_seed(99)),
    Fault("slope", "mlp", "forward", ("r1",), change=_set("r1", "negative_slope", 0.11)),
    Fault("extra_rand", "mlp", "forward", ("MLP",)),
    Fault("functional", "mlp", "forward", ("MLP",)),
    Fault("bf16_layer", "mlp", "forward", ("f1",), change=_in_bfloat16),
    Fault("frozen", "mlp", "backward", ("f0",), change=lambda m, _: m.f0.requires_grad_(False)),
    Fault("edited", "mlp", "weights", ("f1",), change=_scaled("f1.weight")),
    Fault("init", "mlp", "weights", ("f1",), at=0),
    Fault("grad_hook", "mlp", "backward", ("f1",), change=_hooked_gradient("f1.bias")),
    Fault("grad_scale", "mlp", "backward", ("f1",)),
    Fault("clip", "mlp", "backward"),
    Fault("lost_micro", "mlp", "backward"),
    Fault("accumulation", "mlp", "loss"),
    Fault("smoothing", "mlp", "loss"),
    Fault("reduction", "mlp", "loss"),
    Fault("data_order", "mlp", "data"),
    Fault("bad_label", "mlp", "data"),
    Fault("micro_order", "mlp", "forward"),
    Fault("lr", "mlp", "optimizer", change=_group("lr", 0.051)),
    Fault("weight_decay", "mlp", "optimizer", change=_group("weight_decay", 0.0)),
    Fault("nesterov", "mlp", "optimizer", change=_group("nesterov", True)),
    Fault("momentum_lost", "mlp", "optimizer", change=lambda _, o: o.state.clear()),
    Fault("ema", "mlp", "optimizer"),
    Fault("edit_after", "mlp", "weights", ("f1",)),
    Fault("kernel", "cnn", "forward", ("block1.conv2",), change=_hooked("block1.conv2")),
    Fault("checkpoint_rng", "cnn", "backward", ("block2.drop",)),
    Fault("inplace_bug", "cnn", "forward", ("block1",)),
    Fault("residual_scale", "cnn", "forward", ("block1",)),
    Fault("untied", "gpt", "config", ("tok", "head"), at=0),
    Fault("mask", "gpt", "forward", ("blocks.1",)),
    Fault("ln_eps", "gpt", "forward", ("blocks.1.n2",), change=_set("blocks.1.n2", "eps", 2e-5)),
    Fault("scale", "gpt", "forward", ("blocks.0",), change=_set("blocks.0", "scale", 0.51)),
    Fault(
        "gelu",
        "gpt",
        "forward",
        ("blocks.0.act",),
        change=_set("blocks.0.act", "approximate", "tanh"),
    ),
    Fault("positions", "gpt", "forward", ("GPT",)),
    Fault("scheduler", "gpt", "optimizer", at=0),
    Fault("betas", "gpt", "optimizer", change=_group("betas", (0.9, 0.99))),
    Fault("amp", "gpt", "config", ("blocks.0.qkv",), at=0),
    Fault("hidden", "lstm", "forward", ("LSTM",)),
    Fault("pooling", "lstm", "forward", ("LSTM",)),
    Fault("lstm_init", "lstm", "weights", ("lstm",), at=0),
    Fault("no_detach", "gan", "backward", ("G", "G.2")),
    Fault("lr_G", "gan", "optimizer"),
    Fault("label", "gan", "loss"),
    Fault("gan_noise", "gan", "data"),
    Fault("drawn_long_before", "lstm", "forward", ("emb",), change=_hooked("emb")),
    Fault("noise_before", "attention", "forward", ("Attention",)),
    Fault("rand_in_loop", "attention", "data", ("encoder.self_attn",)),
    Fault("after_dropout", "attention", "forward", ("Attention",)),
    Fault("not_zeroed", "attention", "backward"),
    Fault("clip_attention", "attention", "backward"),
    Fault("order_of_optimizers", "attention", "optimizer"),
    Fault("no_step", "attention", "optimizer"),
    Fault("left_out", "attention", "optimizer", ("fc",)),
    Fault("state_lost", "attention", "optimizer"),
    Fault("no_fingerprint", "attention", "data"),
    Fault("threads", "cnn", "config", ("block1.conv2",), change=_more_threads),
    Fault("batch_of_a_rank", "ranks", "backward"),
    Fault("batch_of_this_rank", "ranks", "data"),
    Fault("rank_not_reduced", "ranks", "backward", ("2",)),
]


# ---------------------------------------------------------------- training


def train(
    path: Path, model: str, fault: Fault | None = None, *, every: int = 1, seed: int = 0
) -> Path:
    """Train a model with a trace, and with a fault if one is given."""
    on.fault, on.step = (fault.name if fault else ""), 0
    torch.manual_seed(seed)
    config = {"amp": on.fault == "amp"}
    threads = torch.get_num_threads()
    with Recorder(path, mode="w", config=config, facts=False) as rec:
        if model == "gan":
            _train_gan(rec, every)
        elif model == "ranks":
            _train_ranks(rec, every)
        elif model == "attention":
            _train_attention(rec, every)
        else:
            _train_one(rec, model, fault, every)
    torch.set_num_threads(threads)
    on.fault = ""
    return path


def _train_one(rec: Recorder, name: str, fault: Fault | None, every: int) -> None:
    kinds: dict[str, type[nn.Module]] = {"mlp": MLP, "cnn": CNN, "gpt": GPT, "lstm": LSTM}
    model: Any = kinds[name]()
    _change_at_the_start(model)
    if name in ("gpt", "lstm"):
        optimizer: Any = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)
    else:
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    rec.watch(model, trace=True, optimizer=optimizer, every=every)
    for step in range(STEPS):
        on.step = step
        if step == AT and fault is not None and fault.change is not None:
            fault.change(model, optimizer)
        _step(rec, name, model, optimizer)
        rec.step()


def _change_at_the_start(model: Any) -> None:
    with torch.no_grad():
        if on.fault == "init":
            model.f1.weight[0, 0] += 1e-6
        if on.fault == "lstm_init":
            model.lstm.bias_hh_l0[12:24] += 1.0
    if on.fault == "drawn_long_before":  # no layer of the LSTM draws random numbers
        torch.rand(1)


def _batch(name: str) -> tuple[Tensor, Tensor]:
    number = on.step if not on("data_order") else 2 * AT + 20 - on.step
    g = torch.Generator().manual_seed(1000 + number)
    if name in ("mlp", "cnn"):
        shape = (16, 8) if name == "mlp" else (8, 1, 8, 8)
        x, y = torch.randn(shape, generator=g), torch.randint(0, 3, shape[:1], generator=g)
        if on("bad_label"):
            y[0] = (y[0] + 1) % 3
        return x, y
    letters = torch.randint(0, 20, (8, 8), generator=g)
    return letters[:, :-1], letters[:, 1:] if name == "gpt" else letters[:, 7] % 3


def _step(rec: Recorder, name: str, model: Any, optimizer: Any) -> None:
    if name == "gpt":
        late = on("scheduler", from_the_start=True)
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - (on.step + late) / 50)
    x, y = _batch(name)
    rec.fingerprint(batch=(x, y))
    optimizer.zero_grad()
    parts = 2 if name == "mlp" else 1
    batches = list(zip(x.chunk(parts), y.chunk(parts), strict=True))
    for xs, ys in reversed(batches) if on("micro_order") else batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=on("amp", from_the_start=True)):
            output = model(xs)
        loss = functional.cross_entropy(
            output.float().flatten(0, -2),
            ys.flatten(),
            label_smoothing=0.01 if on("smoothing") else 0.0,
            reduction="sum" if on("reduction") else "mean",
        )
        rec.fingerprint(loss=loss)
        (loss / (3 if on("accumulation") else parts)).backward()
    _change_gradients(model)
    optimizer.step()
    with torch.no_grad():
        if on("edit_after"):
            model.f1.weight.mul_(1 + 1e-6)
    rec.add(train_loss=loss)


def _change_gradients(model: Any) -> None:
    if on("grad_scale"):
        model.f1.weight.grad.mul_(1 + 1e-6)
    if on("lost_micro"):
        for parameter in model.parameters():
            parameter.grad.mul_(0.5)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.45 if on("clip") else 0.5)
    if on("ema"):
        for parameter in model.parameters():
            parameter.data.mul_(1 + 1e-6)


def _train_gan(rec: Recorder, every: int) -> None:
    g = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6))
    d = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    of_g, of_d = (torch.optim.Adam(model.parameters(), 1e-3) for model in (g, d))
    rec.watch(g, trace=True, optimizer=of_g, name="G", every=every)
    rec.watch(d, trace=True, optimizer=of_d, name="D", every=every)
    random = torch.Generator().manual_seed(1)
    score = functional.binary_cross_entropy_with_logits
    for step in range(STEPS):
        on.step = step
        if on("lr_G"):
            of_g.param_groups[0]["lr"] = 1.02e-3
        x, z = torch.randn(16, 6, generator=random), torch.randn(16, 4, generator=random)
        z = z + 1e-6 if on("gan_noise") else z
        rec.fingerprint(x=x, z=z)
        fake = g(z)
        real = torch.full((16, 1), 0.9 if on("label") else 1.0)
        judged = d(fake if on("no_detach") else fake.detach())
        loss = score(d(x), real) + score(judged, torch.zeros(16, 1))
        rec.fingerprint(loss_d=loss)
        of_d.zero_grad()
        loss.backward()
        of_d.step()
        of_g.zero_grad()
        loss = score(d(g(z)), torch.ones(16, 1))
        rec.fingerprint(loss_g=loss)
        loss.backward()
        of_g.step()
        rec.step()


def _train_attention(rec: Recorder, every: int) -> None:
    """With two optimizers."""
    model = Attention()
    of_body = torch.optim.Adam([*model.emb.parameters(), *model.encoder.parameters()], 1e-2)
    of_head = torch.optim.SGD(model.fc.parameters(), 0.1, momentum=0.9)
    rec.watch(model, trace=True, optimizer=[of_body, of_head], every=every)
    random = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        on.step = step
        x = torch.randint(20, (6, 5), generator=random)
        if not on("no_fingerprint"):
            rec.fingerprint(batch=x)
        if on("rand_in_loop"):
            torch.rand(1)
        loss = functional.cross_entropy(model(x), x[:, 0] % 3)
        rec.fingerprint(loss=loss)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.02 if on("clip_attention") else 1.0)
        _step_both(of_body, of_head)
        rec.step()


def _step_both(of_body: Any, of_head: Any) -> None:
    if on.step == AT and on("left_out"):
        del of_head.param_groups[0]["params"][1]
    if on.step == AT and on("state_lost"):
        of_body.state.clear()
    both = [of_head, of_body] if on("order_of_optimizers") else [of_body, of_head]
    for optimizer in both[: 1 if on("no_step") else 2]:
        optimizer.step()
        if not (on.fault == "not_zeroed" and on.step == AT - 1):
            optimizer.zero_grad()


def _train_ranks(rec: Recorder, every: int) -> None:
    """Data parallel on two ranks, of which the first is recorded: gradients are averaged."""
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    other = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    rec.watch(model, trace=True, optimizer=optimizer, every=every)
    random = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        on.step = step
        x, y = torch.randn(2, 8, 8, generator=random), torch.randint(3, (2, 8), generator=random)
        if on("batch_of_a_rank") or on("batch_of_this_rank"):
            x[int(on("batch_of_a_rank")), 0] = 0
        rec.fingerprint(batch=(x[0], y[0]))
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x[0]), y[0])
        rec.fingerprint(loss=loss)
        loss.backward()
        other.load_state_dict(model.state_dict())
        other.zero_grad()
        functional.cross_entropy(other(x[1]), y[1]).backward()
        for name, parameter in model.named_parameters():
            is_left_out = on("rank_not_reduced") and name == "2.weight"
            theirs = other.get_parameter(name).grad
            if theirs is not None and parameter.grad is not None and not is_left_out:
                parameter.grad.add_(theirs).div_(2)
        optimizer.step()
        rec.step()
