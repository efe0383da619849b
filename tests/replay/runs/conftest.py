"""A folder of runs, and a cache of each test's own."""

from pathlib import Path

import pytest

from flexrec.recorder import Recorder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the indexes; it does not exist yet."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "flexrec" / "runs"


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    """Four runs: two learning rates, two seeds; the last ended early."""
    for lr in (0.1, 0.01):
        for seed in (0, 1):
            path = tmp_path / "exp" / f"lr{lr}" / f"seed{seed}.h5"
            config = {"lr": lr, "seed": seed, "opt": {"name": "adam"}, "same": 1}
            with Recorder(path, config=config) as rec:
                for step in range(5 - 2 * (lr < 0.1 and seed)):
                    rec.add({"train_loss": lr + seed - step / 10, "test_acc": 10.0 * seed + step})
                    rec.add({"m1/loss": 2.0, "my-key": 1.0})
                    rec.step()
                    rec.log(step)
    return tmp_path / "exp"
