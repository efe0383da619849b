"""What is measured when an optimizer steps, in training loops of every kind."""

import copy
import gc
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from flexrec.recorder import DefinitionError, Recorder, Recording, TooledModel
from flexrec.replay import TooledModelLogger
from flexrec.replay.sinks.base import ListSink
from support.tooled_cases import near, of, saved

SOURCES = ("weights", "grad_weights", "updates")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def batches(count: int = 4) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield torch.randn(5, 3, generator=generator)


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    loss: Tensor = model(x).square().mean()
    return loss


class ByHand:
    """What a loop by hand sees around each of an optimizer's steps."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.seen = model, list[dict[str, Tensor]]()

    def weights(self) -> dict[str, Tensor]:
        named = self.model.named_parameters()
        return {name[:-7]: p.detach().clone() for name, p in named if name.endswith("weight")}

    def gradients(self) -> dict[str, Tensor]:
        named = self.model.named_parameters()
        return {
            name[:-7]: p.grad.clone()
            for name, p in named
            if name.endswith("weight") and p.grad is not None
        }

    def step(self, take: Callable[[], Any]) -> None:
        before, gradients = self.weights(), self.gradients()
        take()
        found = dict[str, Tensor]()
        for layer, weight in self.weights().items():
            found[f"{layer}/weights"] = weight
            found[f"{layer}/updates"] = weight - before[layer]
            found[f"{layer}/grad_weights"] = gradients[layer]
        self.seen.append(found)


def check(found: list[dict[str, Any]], seen: list[dict[str, Tensor]]) -> None:
    assert len(found) == len(seen)
    for values, expected in zip(found, seen, strict=True):
        assert expected
        for key, tensor in expected.items():
            assert of(values, key) == near(tensor), key


# ---------------------------------------------------------------- where things stand in the loop


def test_it_does_not_matter_where_gradients_are_zeroed_and_the_step_ends() -> None:
    found = list[list[dict[str, Any]]]()
    seen = list[list[dict[str, Tensor]]]()
    for zeroes_at_once in (False, True):
        torch.manual_seed(0)
        model = small()
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        hand, values = ByHand(model), list[dict[str, Any]]()
        with TooledModel(model, SOURCES, optimizer=optimizer) as tooled:
            for x in batches():
                if not zeroes_at_once:
                    optimizer.zero_grad()
                loss_of(model, x).backward()
                hand.step(optimizer.step)
                if zeroes_at_once:
                    optimizer.zero_grad(set_to_none=False)
                values.append(tooled.step())
        found.append(values)
        seen.append(hand.seen)
        check(values, hand.seen)
    assert found[0] == found[1]


def test_a_step_that_ends_before_the_optimizer_has_what_the_optimizer_did_before() -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=0.1)
    hand, found = ByHand(model), list[dict[str, Any]]()
    with TooledModel(model, (*SOURCES, "inputs"), optimizer=optimizer) as tooled:
        for x in batches():
            optimizer.zero_grad()
            loss_of(model, x).backward()
            found.append(tooled.step())
            hand.step(optimizer.step)
    assert {key.split("/")[1] for key in found[0]} == {"inputs", "weights"}
    check(found[1:], hand.seen[:-1])


def test_accumulated_and_clipped_gradients_are_those_that_the_optimizer_gets() -> None:
    model = small()
    optimizer = AdamW(model.parameters(), lr=0.1)
    hand, found = ByHand(model), list[dict[str, Any]]()
    with TooledModel(model, SOURCES, optimizer=optimizer) as tooled:
        for i, x in enumerate(batches(6)):
            loss_of(model, x).backward()
            if i % 2:
                nn.utils.clip_grad_norm_(model.parameters(), 0.01)
                hand.step(optimizer.step)
                optimizer.zero_grad()
                found.append(tooled.step())
    check(found, hand.seen)


def test_steps_of_the_recorder_without_one_of_the_optimizer_have_weights_alone() -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=0.1)
    found = list[dict[str, Any]]()
    with TooledModel(model, SOURCES, optimizer=optimizer) as tooled:
        for i, x in enumerate(batches(4)):
            loss_of(model, x).backward()
            if i % 2:
                optimizer.step()
                optimizer.zero_grad()
            found.append(tooled.step())
    assert [{key.split("/")[1] for key in values} for values in found] == [
        {"weights"},
        {"weights", "grad_weights", "updates", "group0"},  # SGD without momentum has no state
    ] * 2


def test_of_several_steps_the_last_gradient_and_all_updates_count() -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=0.1)
    hand = ByHand(model)
    with TooledModel(model, SOURCES, optimizer=optimizer) as tooled:
        for x in batches(3):
            optimizer.zero_grad()
            loss_of(model, x).backward()
            hand.step(optimizer.step)
        values = tooled.step()
    *_, last = hand.seen
    for layer in ("0", "2"):
        assert of(values, f"{layer}/grad_weights") == near(last[f"{layer}/grad_weights"])
        assert of(values, f"{layer}/weights") == near(last[f"{layer}/weights"])
        total = sum(each[f"{layer}/updates"] for each in hand.seen)
        assert isinstance(total, Tensor)
        assert of(values, f"{layer}/updates") == near(total)


@pytest.mark.parametrize("make", [lambda p: torch.optim.LBFGS(p, max_iter=4), SGD])
def test_gradients_that_a_closure_computes_are_seen(make: Callable[..., Optimizer]) -> None:
    model = small()
    optimizer = make(model.parameters())
    found, last, before = [], list[Tensor](), list[Tensor]()
    weight = model[0].weight
    assert isinstance(weight, nn.Parameter)
    with TooledModel(model, SOURCES, optimizer=optimizer) as tooled:
        for x in batches():

            def closure(x: Tensor = x) -> Tensor:
                optimizer.zero_grad()
                loss = loss_of(model, x)
                loss.backward()
                return loss

            before.append(weight.detach().clone())
            optimizer.step(closure)
            assert weight.grad is not None
            last.append(weight.grad.clone())
            after = weight.detach().clone()
            optimizer.zero_grad()
            found.append((tooled.step(), last[-1], after - before[-1]))
    for values, gradient, update in found:
        assert of(values, "0/grad_weights") == near(gradient)
        assert of(values, "0/updates") == near(update)


@pytest.mark.parametrize(
    "options",
    [
        {"foreach": True, "momentum": 0.9, "nesterov": True},  # changes gradients in its step
        {"fused": True},
        {"foreach": False, "maximize": True},
    ],
    ids=str,
)
def test_gradients_are_those_before_the_optimizer_changes_them(options: dict[str, Any]) -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=0.1, **options)
    hand, found = ByHand(model), list[dict[str, Any]]()
    with TooledModel(model, SOURCES, optimizer=optimizer) as tooled:
        for x in batches():
            optimizer.zero_grad()
            loss_of(model, x).backward()
            hand.step(optimizer.step)
            found.append(tooled.step())
    check(found, hand.seen)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscales", [False, True])
def test_scaled_gradients_are_those_that_are_applied(fused: bool, unscales: bool) -> None:
    model = small()
    optimizer = AdamW(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    found, expected = list[dict[str, Any]](), list[dict[str, Tensor]]()
    hand = ByHand(model)
    with TooledModel(model, SOURCES, optimizer=optimizer, scaler=scaler) as tooled:
        for x in batches():
            loss = loss_of(model, x)
            expected.append({})
            gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
            for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
                if name.endswith("weight"):
                    expected[-1][f"{name[:-7]}/grad_weights"] = gradient
            before = hand.weights()
            scaler.scale(loss).backward()
            if unscales:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            after = hand.weights()
            expected[-1] |= {f"{layer}/updates": after[layer] - before[layer] for layer in after}
            optimizer.zero_grad()
            found.append(tooled.step())
    check(found, expected)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_has_no_update(fused: bool) -> None:
    model = small()
    optimizer = AdamW(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    found = list[dict[str, Any]]()
    with TooledModel(model, SOURCES, optimizer=optimizer, scaler=scaler) as tooled:
        for i, x in enumerate(batches()):
            scaler.scale(loss_of(model, x) * (float("inf") if i == 1 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            found.append(tooled.step())
    assert all(of(found[i], "0/updates") != (0.0, 0.0) for i in (0, 2, 3))
    assert of(found[1], "0/weights") == of(found[0], "0/weights")
    if fused:  # it is called, and finds out itself
        assert of(found[1], "0/updates") == (0.0, 0.0)
    else:
        assert {key.split("/")[1] for key in found[1]} == {"weights"}


def test_an_optimizer_that_steps_within_the_backward_pass_is_seen() -> None:
    model = small()
    optimizers = {p: SGD([p], lr=0.1) for p in model.parameters()}
    expected = dict[nn.Parameter, Tensor]()

    def apply(parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        expected[parameter] = parameter.grad.clone()
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(apply)
    with TooledModel(model, SOURCES, optimizer=optimizers.values()) as tooled:
        loss_of(model, next(batches())).backward()
        values = tooled.step()
    weight = model[2].weight
    assert isinstance(weight, nn.Parameter)
    assert of(values, "2/grad_weights") == near(expected[weight])
    assert of(values, "2/updates") == near(expected[weight] * -0.1)
    assert {key for key in values if key.endswith("/lr")} == {
        f"optimizer{i or ''}/group0/lr" for i in range(4)
    }


# ---------------------------------------------------------------- rates and states


def test_rates_are_those_that_the_step_used() -> None:
    model = small()
    groups = [{"params": model[0].parameters(), "lr": torch.tensor(0.5)}]
    optimizer = SGD([*groups, {"params": model[2].parameters()}], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    found = list[tuple[float, float]]()
    with TooledModel(model, ["weights"], optimizer=optimizer) as tooled:
        for x in batches(3):
            loss_of(model, x).backward()
            optimizer.step()
            scheduler.step()
            values = tooled.step()
            found.append((values["optimizer/group0/lr"], values["optimizer/group1/lr"]))
    assert found == [(0.5, 0.1), (0.25, 0.05), (0.125, 0.025)]


def test_the_norm_of_the_state_is_that_of_all_its_tensors() -> None:
    model = small()
    optimizer = Adam(model.parameters(), lr=0.1)
    with TooledModel(model, ["weights"], ["std", "fingerprint"], optimizer=optimizer) as tooled:
        prints = list[Any]()
        for x in batches(3):
            optimizer.zero_grad()
            loss_of(model, x).backward()
            optimizer.step()
            values = tooled.step()
            prints.append(values["0/state/fingerprint"])
    state = optimizer.state[model[0].weight]
    expected = torch.cat([state["exp_avg"].flatten(), state["exp_avg_sq"].flatten()]).norm()
    assert values["0/state/norm"] == pytest.approx(expected.item(), rel=1e-4)
    assert {key for key in values if "/state/" in key} == {
        f"{layer}/state/{stat}" for layer in "02" for stat in ("norm", "fingerprint")
    }
    assert len(set(prints)) == 3


def test_a_minibatch_of_snr_is_the_gradient_that_the_optimizer_got() -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=0.1)
    seen = list[Tensor]()
    weight = model[0].weight
    with TooledModel(model, [], ["signal", "noise"], optimizer=optimizer) as tooled:
        for x in batches():
            loss_of(model, x).backward()
            assert isinstance(weight.grad, Tensor)
            seen.append(weight.grad.double().clone())
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            values = tooled.step()
    rows = torch.stack(seen)
    norm = weight.detach().double().norm().item()
    assert values["0/grad_weights/signal"] == pytest.approx(rows.mean(0).norm().item() / norm)
    spread = rows.var(0, correction=0).sum().sqrt().item()
    assert values["0/grad_weights/noise"] == pytest.approx(spread / norm)


# ---------------------------------------------------------------- which optimizers


def test_several_optimizers_and_models_have_names(tmp_path: Path) -> None:
    maker, critic = small(), nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    of_maker, of_critic = SGD(maker.parameters(), lr=0.1), Adam(critic.parameters(), lr=0.2)
    rest = SGD([maker[0].bias], lr=0.3)
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        rec.watch(maker, sources=SOURCES, optimizer=[of_maker, rest])
        rec.watch(critic, sources=SOURCES, optimizer=of_critic, name="critic")
        for x in batches():
            critic(maker(x)).mean().backward()
            for optimizer in (of_maker, rest, of_critic):
                optimizer.step()
                optimizer.zero_grad()
            rec.step()
        with pytest.raises(DefinitionError, match="an optimizer 'optimizer' is watched already"):
            rec.watch(nn.ModuleDict({"other": small()}), optimizer=of_maker)
    with Recording(tmp_path / "run.h5") as run:
        rates = {key: run[key].value.tolist() for key in run if key.endswith("lr")}
    assert rates == {
        "optimizer/group0/lr": [0.1] * 4,
        "optimizer1/group0/lr": [0.3] * 4,
        "critic.optimizer/group0/lr": [0.2] * 4,
    }


def test_weights_that_no_given_optimizer_holds_are_measured_at_the_end() -> None:
    model = small()
    given, other = SGD(model[0].parameters(), lr=0.1), SGD(model[2].parameters(), lr=0.1)
    with TooledModel(model, SOURCES, optimizer=given) as tooled:
        hand = ByHand(model)
        loss_of(model, next(batches())).backward()
        hand.step(lambda: (given.step(), other.step()))
        given.zero_grad()
        check([tooled.step()], hand.seen)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("adam", "str"),
        (3, "int"),
        (torch.optim.lr_scheduler.ConstantLR(SGD([torch.zeros(1)])), "ConstantLR"),
        ([nn.Linear(1, 1)], "Linear"),
    ],
    ids=["str", "int", "scheduler", "model"],
)
def test_what_is_no_optimizer_is_refused(given: Any, kind: str) -> None:
    with pytest.raises(DefinitionError, match=f"optimizer= takes .*, got {kind}"):
        TooledModel(small(), optimizer=given)


def test_an_optimizer_that_never_steps_is_told_of() -> None:
    model = small()
    with TooledModel(model, optimizer=SGD(model.parameters(), lr=0.1)) as tooled:
        for x in batches():
            loss_of(model, x).backward()
            tooled.step()
        assert tooled.silence == "its optimizer took no step that was measured"


def test_an_optimizer_that_is_replaced_is_told_of_once() -> None:
    model, x = small(), next(iter(batches()))
    optimizer = SGD(model.parameters(), lr=0.1)
    with TooledModel(model, optimizer=optimizer) as tooled, warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(250):
            loss_of(model, x).backward()
            if number == 99:  # 99 micro-batches of an accumulated gradient are no cause
                optimizer.step()
            if number < 199:
                tooled.step()
        assert tooled.silence is None
        with pytest.warns(RuntimeWarning, match=r"no step in 100 measured steps; if another one"):
            tooled.step()
        tooled.step()
        assert "took no step in 100" in (tooled.silence or "")


@pytest.mark.parametrize(("accumulated", "rest", "is_told"), [(1, 20, True), (8, 20, False)])
def test_an_optimizer_that_is_replaced_is_told_of_at_the_end(
    accumulated: int, rest: int, is_told: bool
) -> None:
    """Not where it may have been idle for as long before."""
    model, x = small(), next(iter(batches()))
    optimizer = SGD(model.parameters(), lr=0.1)
    with TooledModel(model, optimizer=optimizer) as tooled:
        for number in range(24 + rest):
            loss_of(model, x).backward()
            if number < 24 and number % accumulated == accumulated - 1:
                optimizer.step()
            tooled.step()
        assert ("took no step in 20 measured steps" in (tooled.silence or "")) is is_told


def test_a_logger_plots_rates() -> None:
    model, sink = small(), ListSink()
    optimizer = SGD(model.parameters(), lr=0.1)
    logger = TooledModelLogger(model, "by_layer", optimizer=optimizer, sink=sink)
    loss_of(model, next(batches())).backward()
    optimizer.step()
    logger.step(log=True)
    logger.close()
    (window,) = (window for window in sink.windows.values() if window.title == "optimizer")
    (trace,) = window.traces
    assert (trace.name, trace.y.tolist()) == ("group0 lr", [0.1])


# ---------------------------------------------------------------- training is left alone


def test_training_is_the_same_to_the_bit_and_so_is_what_is_saved() -> None:
    def train(watched: bool) -> tuple[bytes, bytes, dict[str, Any], dict[str, Any]]:
        torch.manual_seed(0)
        model = small()
        optimizer = AdamW(model.parameters(), lr=0.1, foreach=True)
        options = {"optimizer": optimizer, "sources": SOURCES}
        tooled = TooledModel(model, **options) if watched else None
        for x in batches():
            loss_of(model, x).backward()
            optimizer.step()
            optimizer.zero_grad()
            if tooled is not None:
                tooled.step()
        loss_of(model, x).backward()  # amid a step
        return saved(model), saved(optimizer), vars(copy.deepcopy(optimizer)), model.state_dict()

    (bare, bare_optimizer, bare_copy, weights), (model, optimizer, copied, same) = (
        train(watched) for watched in (False, True)
    )
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert bare == model
    assert bare_optimizer == optimizer
    assert copied.keys() == bare_copy.keys()
    assert not copied["_optimizer_step_pre_hooks"]
    assert not copied["_optimizer_step_post_hooks"]


@pytest.mark.parametrize("how", ["remove", "close", "forget"])
def test_hooks_go_with_the_watching(how: str, tmp_path: Path) -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=0.1)
    rec = Recorder(tmp_path / "run.h5", facts=False)
    if how == "forget":
        tooled = TooledModel(model, optimizer=optimizer)
    else:
        tooled = rec.watch(model, optimizer=optimizer)
    assert optimizer._optimizer_step_post_hooks
    if how == "remove":
        tooled.remove()
    rec.close()
    del tooled
    gc.collect()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_an_optimizer_that_pickles_its_hooks_loads_without_them() -> None:
    class Whole(SGD):
        def __getstate__(self) -> dict[str, Any]:
            return vars(self)

    model = small()
    with TooledModel(model, optimizer=SGD(model.parameters())) as tooled:
        hook = next(iter(next(iter(tooled.optimizers))._optimizer_step_post_hooks.values()))
    assert pickle.loads(pickle.dumps(hook))(1, 2, 3) is None  # noqa: S301 - our own
