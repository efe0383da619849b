"""Make tests/data/golden_run.h5: the small recording that the presets' goldens are made from.

    python tools/golden_run.py
    python -m pytest tests/e2e/test_goldens.py --plot-update

A real training run with torch, of a two-class problem in the plane, with fixed times. It has every
key that a preset wants; a new preset that wants another gets it here.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from flexrec.recorder import Recorder, TooledModel
from flexrec.recorder.events import Add, Log, normalise

OUT = Path(__file__).resolve().parent.parent / "tests" / "data" / "golden_run.h5"
EPOCHS, BATCHES, BATCH = 6, 5, 16
START, SECONDS = 1_700_000_000.0, 0.25  # of the recorded clock: when it starts, what a step takes
WATCHED = (  # sources and statistics
    (
        ("grad_in", "grad_out", "inputs", "outputs", "weights"),
        ("mean", "std", "update_ratio", "dead"),
    ),
    (("grad_weights",), ("std", "norm", "grad_ratio", "nonfinite", "snr", "signal", "noise")),
)


def main() -> None:
    """Train, and record."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 2))
    watched = [TooledModel(model, sources, stats) for sources, stats in WATCHED]
    histograms = TooledModel(
        model, ("weights", "grad_out"), ("histogram", "log_histogram"), every=BATCHES
    )
    probe = batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
    step = 0
    with Recorder(OUT, mode="w", config={"made by": "tools/golden_run.py"}, facts=False) as rec:

        def add(values: Mapping[str, object]) -> None:
            taken = {key: normalise(key, value) for key, value in values.items()}
            known = {key: value for key, value in taken.items() if value is not None}
            if known:
                rec.record(Add(known, step, START + SECONDS * step))

        for epoch in range(EPOCHS):
            for _ in range(BATCHES):
                x, classes = batch()
                optimizer.zero_grad()
                output = model(x)
                loss = cross_entropy(output, classes)
                loss.backward()
                optimizer.step()
                add(metrics("train", loss, output.detach(), classes))
                add({"lr": schedule.get_last_lr()[0]})
                for tooled in (*watched, histograms):
                    add(tooled.step())
                add(costs(step))
                step += 1
                rec.step(step)
            with torch.no_grad():
                x, classes = batch()
                output = model(x)
                add(metrics("test", cross_entropy(output, classes), output, classes))
            rec.activations(model, *probe)
            schedule.step()
            rec.record(Log(float(epoch), None, True, step, START + SECONDS * step))
    for tooled in (*watched, histograms):
        tooled.remove()
    print(f"{OUT}: {OUT.stat().st_size} bytes")


def batch() -> tuple[Tensor, Tensor]:
    """Points (n, 2), and whether each lies outside the circle (n,)."""
    x = torch.randn(BATCH, 2)
    return x, (x.square().sum(1) > 1.4).long()


def costs(step: int) -> dict[str, float]:
    """What layers might cost, named as by `stats=("seconds", "bytes")`; the same on any machine."""
    values: dict[str, float] = {}
    for layer, share in (("0", 0.5), ("1", 0.125), ("2", 0.25)):
        values[f"{layer}/forward/seconds"] = share * (1 + step % 4) / 1024
        values[f"{layer}/backward/seconds"] = share * (2 + step % 4) / 1024
        values[f"{layer}/step/share"] = share
        values[f"{layer}/forward/bytes"] = 1024.0 * (1 + int(layer))
    return values


def metrics(phase: str, loss: Tensor, output: Tensor, classes: Tensor) -> dict[str, object]:
    """Everything that the presets draw of a phase."""
    scores = output.softmax(1)
    return {
        f"{phase}_loss": loss,
        f"{phase}_mse": (scores, one_hot(classes, 2).float()),
        f"{phase}_acc": (output, classes),
        f"{phase}_err": (output, classes),
        f"{phase}_auc": (scores[:, 1], classes),
        f"{phase}_map": (scores, one_hot(classes, 2)),
        f"{phase}_confusion": (output, classes),
    }


if __name__ == "__main__":
    main()
