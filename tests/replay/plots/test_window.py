"""Windows as plain data: the names in their legends."""

import pytest

from flexrec.replay.plots.window import Trace, legend_names


@pytest.mark.parametrize(
    ("title", "names", "expected"),
    [
        ("Loss", ["train_loss", "test_loss"], ["train", "test"]),
        ("Loss", ["loss/train", "loss/test"], ["train", "test"]),
        ("Loss", ["train_loss", "lr"], ["train_loss", "lr"]),
        ("Loss", ["loss"], ["loss"]),
        ("Train loss", ["train loss"], ["train loss"]),
        ("Weights std", ["0/weights/std", "2/weights/std"], ["0", "2"]),
        ("Gradient norm", ["blocks.0.norm", "blocks.1.norm"], ["blocks.0.norm", "blocks.1.norm"]),
        ("Gradient norm", ["norm", "fc_norm"], ["norm", "fc_norm"]),
        ("Loss", [], []),
    ],
)
def test_a_legend_spares_what_all_names_share_with_the_title(
    title: str, names: list[str], expected: list[str]
) -> None:
    assert legend_names([Trace(name, [1.0]) for name in names], title) == expected


def test_the_names_of_runs_are_kept() -> None:
    traces = [Trace(f"{run} train_loss", [1.0], run=run) for run in ("loss-a", "loss-b")]
    assert legend_names(traces, "Loss") == ["loss-a train", "loss-b train"]
    alone = [Trace(run, [1.0], run=run) for run in ("a_loss", "b_loss")]
    assert legend_names(alone, "Loss") == ["a_loss", "b_loss"]
    assert legend_names(traces, "loss-a: Loss") == ["loss-a train", "loss-b train"]


def test_the_name_of_a_run_that_the_title_has_is_spared() -> None:
    traces = [Trace(name, [1.0], run="a") for name in ("a_loss", "acc")]
    assert legend_names(traces, "a: Both") == ["a_loss", "acc"]
