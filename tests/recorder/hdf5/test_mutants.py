"""A few of the mutants of benchmarks/mutants.py: data or a RecordingError, nothing else."""

from pathlib import Path

import pytest

from support import mutants

STEPS = 120


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A live, a killed and a closed recording."""
    return mutants.sources(tmp_path_factory.mktemp("sources"), steps=STEPS)


def test_every_mutant_is_data_or_a_recording_error(files: dict[str, bytes], tmp_path: Path) -> None:
    plan = list(mutants.plan(files, 108, seed=500))
    result = mutants.trial(tmp_path, plan, files)
    assert not result.failures
    assert result.verdicts.total() == len(plan)
    assert result.memory < 64 << 20


def test_nothing_of_a_closed_recording_changes_unseen(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    plan = [("closed", damage, 700 + k) for k in range(15) for damage in mutants.DAMAGES]
    result = mutants.trial(tmp_path, plan, files)
    assert not result.failures
    assert {word for _, _, word in result.verdicts} <= {"equal", "RecordingError"}


def test_verify_finds_what_changed_in_a_live_recording(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    damage = "one bit of what was written"
    plan = [(name, damage, 900 + k) for k in range(30) for name in ("live", "killed")]
    result = mutants.trial(tmp_path, plan, files)
    assert not result.failures
    assert not any(result.verdicts[name, damage, mutants.UNSEEN] for name in files)
    assert result.verdicts["killed", damage, mutants.FOUND]


def test_forged_structures_do_no_harm(files: dict[str, bytes], tmp_path: Path) -> None:
    plan = [(name, mutants.FORGED, seed) for seed in range(25) for name in ("killed", "closed")]
    result = mutants.trial(tmp_path, plan, files)
    assert not result.failures
    assert result.verdicts["closed", mutants.FORGED, "RecordingError"]


def test_cuts_leave_a_clean_prefix(files: dict[str, bytes], tmp_path: Path) -> None:
    plan = [(name, "truncated", seed) for seed in range(15) for name in files]
    result = mutants.trial(tmp_path, plan, files)
    assert not result.failures
    assert {word for _, _, word in result.verdicts} <= {"equal", "prefix", "RecordingError"}
    assert result.verdicts["killed", "truncated", "prefix"]


def test_a_mutant_is_the_same_every_time(files: dict[str, bytes]) -> None:
    for damage in (*mutants.DAMAGES, mutants.FORGED):
        first, second = (mutants.mutate(files["closed"], damage, 5) for _ in range(2))
        assert first == second
        assert first != mutants.mutate(files["closed"], damage, 6)


def test_a_reader_that_dies_is_told_apart_and_replaced(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "run.h5"
    path.write_bytes(files["closed"])
    reader = mutants.Reader()
    assert "error" not in reader.read(path)
    assert reader.child is not None
    reader.child.kill()
    reader.child.wait()
    assert reader.read(path)["error"] == "crash"
    assert "error" not in reader.read(path)
    reader.close()
