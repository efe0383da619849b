"""Models that are no chain of layers, and optimizers that call the model: what is blamed."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import flexrec
from flexrec.recorder import Recorder

AT = 2
ALL = ("inputs", "outputs", "grad_out", "grad_in", "grad_weights", "weights", "updates")
WATCHED: dict[str, dict[str, Any]] = {
    "trace": {"trace": True},
    "stats": {},
    "all": {"sources": ALL, "stats": ("mean", "std", "fingerprint")},
}


class Net(nn.Module):
    """Has weights of its own around its layers, starts from letters, and calls a cell in a loop."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.on = run.on
        self.emb, self.body = nn.Embedding(7, 6), nn.Linear(6, 6)
        self.cell, self.head = nn.RNNCell(6, 6), nn.Linear(6, 3)
        self.place = nn.Parameter(torch.linspace(-1, 1, 6))

    def forward(self, letters: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(self.emb(letters) + self.place)
        state = h[:, 0]
        for i in range(h.shape[1]):
            state = self.cell(h[:, i], state)
        scores = self.head(state)
        used = scores.detach() if self.on("output is detached") else scores
        return scores * 1.1 if self.on("last code") else scores, used.T @ h.mean(1)


class Plain(nn.Module):
    """Has no weights of its own: an encoder that is called twice, and layers to choose from."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.on = run.on
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6))
        self.gate, self.head = nn.Linear(6, 2), nn.Linear(6, 3)
        self.choices = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.encoder(x), self.encoder(x.flip(0))
        if self.on("branch is detached"):
            other = other.detach()
        h = one + other
        chosen = int(self.gate(h).sum() > 100)
        y: Tensor = self.head(self.choices[chosen](h))
        return y * (1.1 if self.on("last code") else 1)


class Made(nn.Module):
    """Computes its weights with a layer of its own, and uses its inputs itself."""

    def __init__(self) -> None:
        super().__init__()
        self.raw, self.bend = nn.Parameter(torch.eye(6)), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.bend(self.raw))


class Mixed(nn.Module):
    """Draws random numbers in its code, calls another expert after two steps, and has two heads."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = [run]  # not by itself: it would be an attribute
        self.first, self.made = nn.Linear(4, 6), Made()
        self.side, self.head = nn.Linear(6, 3), nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.made(functional.dropout(self.first(x), 0.1, self.training))
        h = self.experts[self.run[0].step // 2 % 2](h)
        return self.side(h), self.head(h)


class Training:
    """Trains one of the models, with a fault from a step on."""

    def __init__(self, kind: str, fault: str) -> None:
        torch.manual_seed(0)
        self.fault, self.step = fault, 0
        self.has_letters, self.uses_lbfgs = kind == "net", kind == "lbfgs"
        kinds: dict[str, Any] = {"net": Net, "plain": Plain, "lbfgs": Plain, "mixed": Mixed}
        self.model: Any = kinds[kind](self)
        weights = self.model.parameters()
        self.optimizer: Any = torch.optim.AdamW(weights, 1e-3, weight_decay=0.1)
        if self.uses_lbfgs:
            self.model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
            self.optimizer = torch.optim.LBFGS(self.model.parameters(), 0.5, max_iter=3)

    def on(self, fault: str) -> bool:
        return self.fault == fault and self.step >= AT

    def record(self, path: Path, watched: str) -> Path:
        with Recorder(path, mode="w", facts=False) as rec:
            rec.watch(self.model, optimizer=self.optimizer, **WATCHED[watched])
            for self.step in range(AT + 2):
                if self.step == AT:
                    self._plant()
                (self._minimize if self.uses_lbfgs else self._train)(rec)
                rec.step()
        return path

    def _plant(self) -> None:
        name, _, what = self.fault.partition(" ")
        if what == "hook":
            layer = self.model.get_submodule(name)
            layer.register_forward_hook(lambda *found: found[2] * 1.1)
        elif what == "opens":
            layer = self.model.get_submodule(name)
            layer.register_forward_hook(lambda *found: found[2] + 1000)
        elif what == "gradient":
            layer = self.model.get_submodule(name)
            layer.register_full_backward_hook(lambda *found: (found[1][0] * 1.1,))
        elif what == "seed":
            torch.manual_seed(99)
        elif what == "frozen":
            self.model.get_submodule(name).requires_grad_(False)
        elif what == "state":
            self.optimizer.state.clear()
        elif what == "decay":
            self.optimizer.param_groups[0]["weight_decay"] = 0.2
        elif what == "edited":
            with torch.no_grad():
                self.model.get_submodule(name).weight_hh.mul_(1.1)

    def _batch(self, number: int) -> Tensor:
        g = torch.Generator().manual_seed(10 * self.step + number)
        if self.has_letters:
            return torch.randint(0, 7, (5, 4), generator=g)
        return torch.randn(5, 4, generator=g)

    def _loss(self, rec: Recorder, x: Tensor) -> Tensor:
        outputs = self.model(x)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = sum((each.square().mean() for each in outputs), torch.zeros(()))
        rec.fingerprint(loss=loss)
        return loss

    def _train(self, rec: Recorder) -> None:
        if not self.on("not zeroed"):
            self.optimizer.zero_grad()
        for number in range(2):
            x = self._batch(5 if self.on("second batch") and number else number)
            rec.fingerprint(batch=x)
            if self.on("clamped before") or (self.on("clamped between") and number):
                with torch.no_grad():
                    for layer in (self.model.body, self.model.head):
                        layer.weight.clamp_(-0.1, 0.1)
            loss = self._loss(rec, x)
            if not self.on("no backward"):
                loss.backward()
        if isinstance(self.model, Mixed):
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.01)
        if self.on("no gradients"):
            self.optimizer.zero_grad(set_to_none=True)
        if not self.on("no step"):
            self.optimizer.step()
        if self.on("after step"):
            with torch.no_grad():
                self.model.head.weight.mul_(1.1)

    def _minimize(self, rec: Recorder) -> None:
        x = self._batch(0)
        rec.fingerprint(batch=x)

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = self._loss(rec, x)
            loss.backward()
            if self.on("in closure"):
                self.model[2].weight.grad.mul_(1.1)
            return loss

        self.optimizer.step(closure)


FAULTS = [  # what is trained and watched, the fault, its stage, and what is blamed or a candidate
    ("net", "all", "body hook", "forward", "body"),
    ("net", "all", "emb hook", "forward", "emb"),
    ("net", "all", "emb frozen", "backward", "emb"),
    ("net", "stats", "emb frozen", "backward", "emb"),
    ("net", "trace", "emb frozen", "backward", "emb"),
    ("net", "stats", "emb hook", "forward", "emb"),
    ("net", "stats", "cell edited", "forward", "cell"),
    ("net", "all", "head hook", "forward", "head"),
    ("net", "all", "last code", "forward", "Net"),
    ("net", "trace", "output is detached", "loss", "Net"),
    ("net", "trace", "second batch", "data", None),
    ("net", "trace", "after step", "weights", "head"),
    ("net", "trace", "clamped before", "weights", "head"),  # and body
    ("net", "trace", "clamped between", "weights", "head"),
    ("net", "trace", "no gradients", "optimizer", None),
    ("net", "trace", "no backward", "backward", None),
    ("net", "all", "no backward", "backward", None),
    ("net", "all", "no step", "optimizer", None),
    ("net", "all", "after step", "weights", "head"),
    ("net", "stats", "optimizer decay", "weights", "the optimizer"),
    ("plain", "trace", "branch is detached", "backward", "Plain"),
    ("plain", "all", "gate opens", "forward", "gate"),
    ("plain", "stats", "gate opens", "forward", "gate"),  # another layer is called then
    ("plain", "stats", "encoder.0 frozen", "backward", "encoder.0"),
    ("plain", "all", "last code", "loss", "the model"),
    ("mixed", "trace", "made gradient", "backward", "made"),
    ("mixed", "trace", "another seed", "data", "Mixed"),
    ("mixed", "stats", "first hook", "forward", "first"),  # the expert did not run before
    ("mixed", "stats", "side hook", "loss", "a layer in parallel"),
    ("mixed", "all", "side gradient", "backward", "a layer in parallel"),
    ("mixed", "all", "head frozen", "backward", "head"),  # all gradients are clipped less
    ("mixed", "trace", "not zeroed", "backward", "gradients that were not zeroed"),
    ("lbfgs", "trace", "in closure", "optimizer", "the gradients"),
    ("lbfgs", "trace", "optimizer state", "optimizer", None),
    ("lbfgs", "all", "in closure", "forward", "an earlier pass of the step"),
]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Returns a run without a fault, of what is trained and how it is watched."""
    folder = tmp_path_factory.mktemp("wholes")

    @cache
    def whole(kind: str, watched: str) -> Path:
        return Training(kind, "").record(folder / f"{kind}-{watched}.h5", watched)

    return whole


@pytest.mark.parametrize(("kind", "watched", "fault", "stage", "culprit"), FAULTS)
def test_what_is_blamed(
    kind: str,
    watched: str,
    fault: str,
    stage: str,
    culprit: str | None,
    wholes: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    whole, bent = wholes(kind, watched), Training(kind, fault).record(tmp_path / "b.h5", watched)
    for runs in ((whole, bent), (bent, whole)):
        first = flexrec.diff(*runs).first
        assert first is not None
        assert (first.step, first.previous_step, first.stage) == (AT, AT - 1, stage), first
        assert culprit in (first.one_of or (first.layer,)), first
        assert watched != "trace" or stage != "weights" or "the optimizer" not in first.one_of


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("kind", ["net", "plain", "mixed", "lbfgs"])
def test_equal_runs_are_equal(
    kind: str, watched: str, wholes: Callable[[str, str], Path], tmp_path: Path
) -> None:
    again = Training(kind, "").record(tmp_path / "b.h5", watched)
    assert flexrec.diff(wholes(kind, watched), again).equal


def train_two(path: Path, watched: str, fault: str = "") -> Path:
    """Train two models of which the second goes into the first, with a fault in one of them."""
    torch.manual_seed(0)
    models = {
        "decoder": nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)),
        "encoder": nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6)),
    }
    with Recorder(path, mode="w", facts=False) as rec:
        for name, model in models.items():
            rec.watch(model, name=name, **WATCHED[watched])
        for step in range(AT + 2):
            if fault and step == AT:
                name, number, what = fault.split()
                layer = models[name][int(number)]
                if what == "hook":
                    layer.register_forward_hook(lambda *found: found[2] * 1.1)
                else:
                    layer.register_full_backward_hook(lambda *found: (found[1][0] * 1.1,))
            x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
            rec.fingerprint(batch=x)
            loss = models["decoder"](models["encoder"](x)).square().mean()
            rec.fingerprint(loss=loss)
            loss.backward()
            rec.step()
    return path


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize(
    "fault",
    [
        *("encoder 0 hook", "encoder 2 hook", "decoder 0 hook"),
        *("encoder 2 gradient", "decoder 0 gradient", "decoder 2 gradient"),
    ],
)
def test_models_that_run_in_another_order_than_they_are_watched(
    fault: str, watched: str, tmp_path: Path
) -> None:
    whole, bent = (
        train_two(tmp_path / "a.h5", watched),
        train_two(tmp_path / "b.h5", watched, fault),
    )
    name, number, what = fault.split()
    for runs in ((whole, bent), (bent, whole)):
        first = flexrec.diff(*runs).first
        assert first is not None
        assert (first.step, first.stage) == (AT, "forward" if what == "hook" else "backward"), first
        assert f"{name}.{number}" in (first.one_of or (first.layer,)), first


def train_against(path: Path, watched: str, fault: str = "") -> Path:
    """Train a GAN of which both optimizers step before the recorder does, with a fault."""
    torch.manual_seed(0)
    norm = nn.LayerNorm(6)
    models = {
        "made": nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4)),
        "judge": nn.Sequential(nn.Linear(4, 6), norm, nn.Linear(6, 1)),
    }
    optimizers = {name: torch.optim.Adam(each.parameters()) for name, each in models.items()}
    with Recorder(path, mode="w", facts=False) as rec:
        for name, model in models.items():
            rec.watch(model, name=name, optimizer=optimizers[name], **WATCHED[watched])
        for step in range(AT + 2):
            if step == AT and fault == "eps":
                norm.eps = 0.1
            x, z = torch.randn(5, 4), torch.randn(5, 3)
            rec.fingerprint(batch=x)
            if fault != "not zeroed" or step != AT:
                optimizers["judge"].zero_grad()
            fake = models["made"](z).detach() * (1.1 if fault == "between" and step == AT else 1)
            judged = models["judge"](x), models["judge"](fake)
            functional.softplus(judged[1] - judged[0]).mean().backward()
            optimizers["judge"].step()
            optimizers["made"].zero_grad()
            functional.softplus(-models["judge"](models["made"](z))).mean().backward()
            optimizers["made"].step()
            rec.step()
    return path


@pytest.mark.parametrize(
    ("watched", "fault", "stage", "culprit"),
    [
        ("all", "eps", "forward", "an earlier pass of the step"),
        ("stats", "eps", "forward", "an earlier pass of the step"),
        ("trace", "eps", "forward", "judge.1"),
        ("all", "not zeroed", "forward", "an earlier pass of the step"),
        ("trace", "not zeroed", "backward", None),
        ("trace", "between", "forward", None),
    ],
)
def test_an_optimizer_that_steps_between_the_passes(
    watched: str, fault: str, stage: str, culprit: str | None, tmp_path: Path
) -> None:
    whole, bent = (
        train_against(tmp_path / "a.h5", watched),
        train_against(tmp_path / "b.h5", watched, fault),
    )
    for runs in ((whole, bent), (bent, whole)):
        first = flexrec.diff(*runs).first
        assert first is not None
        assert (first.step, first.stage) == (AT, stage), first
        assert culprit in (first.one_of or (first.layer,)), first
