"""The house: which way dependencies point, who imports what, and what is public."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"recorder": 0, "replay": 1, "cli": 2}
ONLY = {  # module → the files that may import it at all
    "torch": {
        "recorder/activations.py",
        "recorder/armed_step.py",
        "recorder/as_written.py",
        "recorder/gradient_stream.py",
        "recorder/hook.py",
        "recorder/loss_scale.py",
        "recorder/measures.py",
        "recorder/tooled_model.py",
        "recorder/statistics.py",
        "recorder/buffer.py",
        "recorder/on_device.py",
        "recorder/recorder.py",
        "replay/flexlogger.py",
    },
    "visdom": {"replay/visdom_sink.py"},
    "plotly": set(),  # its JavaScript alone is read
    "pyarrow": {"cli/parquet.py"},
    "rich": {"cli/progress.py"},
    "tornado": {"replay/visdom_process.py"},
    "uniplot": {"cli/text_plot.py"},
}


def sources() -> list[Path]:
    """Every file of the package."""
    return sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_there_are_sources() -> None:
    assert len(sources()) > 20


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_dependencies_point_down(path: Path) -> None:
    floor = FLOORS[path.relative_to(ROOT).parts[0]]
    for module in imports(path):
        if module.startswith("flexrec."):
            assert FLOORS[module.split(".")[1]] <= floor, f"{path} imports {module}"


@pytest.mark.parametrize("module", sorted(ONLY))
def test_heavy_modules_have_few_owners(module: str) -> None:
    importers = {
        str(path.relative_to(ROOT))
        for path in sources()
        if any(name.split(".")[0] == module for name in imports(path))
    }
    assert importers <= ONLY[module]


def test_every_folder_and_every_data_file_is_packaged() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]
    homes = {Path(folder): name for name, folder in told["package-dir"].items()}
    assert sorted(told["packages"]) == sorted(homes.values())
    for path in (path for floor in FLOORS for path in (ROOT / floor).rglob("*") if path.is_file()):
        if "__pycache__" not in path.parts:
            package = homes[path.relative_to(ROOT).parent]
            data = {*told["package-data"].get(package, ()), *told["package-data"]["*"]}
            assert path.suffix == ".py" or path.name in data, path


def test_importing_the_sides_imports_nothing_heavy() -> None:
    code = (
        "import sys, flexrec.recorder, flexrec.replay\n"
        "print(sorted({'torch', 'visdom', 'scipy', 'sklearn', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_is_sorted_and_complete() -> None:
    for path in sources():
        if path.name == "__init__.py" and not path.read_text(encoding="utf-8"):
            continue
        module = ".".join(("flexrec", *path.relative_to(ROOT).with_suffix("").parts))
        if module.startswith("flexrec.recorder.") and "torch" in imports(path):
            pytest.importorskip("torch")
        loaded = importlib.import_module(module.removesuffix(".__init__"))
        names = getattr(loaded, "__all__", None)
        assert names is not None, f"{module} has no __all__"
        assert list(names) == sorted(names, key=_natural), module
        for name in names:
            if name == "TooledModel":
                continue  # needs torch
            assert hasattr(loaded, name), f"{module}.{name}"


def test_what_one_module_takes_from_another_is_in_its_all() -> None:
    trees = {
        ".".join(("flexrec", *path.relative_to(ROOT).with_suffix("").parts)): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in sources()
    }
    given = {
        module: set(ast.literal_eval(node.value))
        for module, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    }
    taken = [
        (module, node.module, alias.name)
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in given
        for alias in node.names
    ]
    assert len(taken) > 300
    assert [(by, of, name) for by, of, name in taken if name not in given[of]] == []


def _natural(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions: as the linter sorts `__all__`."""
    if name.isupper():
        return 0, name
    return (1, name) if name[:1].isupper() else (2, name)


PUBLIC = {
    "flexrec.recorder": """
        DefinitionError FlexrecError InputError MeterError NotARecordingError Recorder Recording
        RecordingError Series ServerError TooledModel VersionError merge_recordings
    """,
    "flexrec.replay": """
        Definitions FlexLogger TooledModelLogger Trace Window compare define get_preset_logger
        load_toml meter_info meter_types play plot_info plot_types preset preset_info preset_names
        snapshot
    """,
    "flexrec.cli": "main",
}


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_the_public_surface_is_pinned(module: str) -> None:
    assert list(importlib.import_module(module).__all__) == PUBLIC[module].split()


def test_public_classes_and_functions_are_documented() -> None:
    for module in ("flexrec.recorder", "flexrec.replay"):
        loaded = importlib.import_module(module)
        for name in loaded.__all__:
            if name != "TooledModel":
                assert getattr(loaded, name).__doc__, name


def test_the_readme_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Sequential()
    model.add_module("blocks", torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(4, 2))))
    scope = {
        "model": model,
        "epochs": 2,
        "loader": [(torch.randn(3, 4), torch.randn(3, 2))] * 2,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loss_function": torch.nn.functional.mse_loss,
    }
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        if "get_preset_logger(" in block:  # no server listens here: it must only warn
            with pytest.warns(RuntimeWarning, match="windows are kept in memory"):
                exec(compile(block, "README.md", "exec"), scope)  # noqa: S102 - our own README
        elif "load_state_dict(" in block:  # no rank recorded here before
            with pytest.warns(RuntimeWarning, match="nothing is recorded, and training goes on"):
                exec(compile(block, "README.md", "exec"), scope)  # noqa: S102 - our own README
        else:
            exec(compile(block, "README.md", "exec"), scope)  # noqa: S102 - our own README
    assert (tmp_path / "run.h5").exists()
    (tmp_path / "plots.toml").write_text(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0])
    commands = re.findall(r"^flexrec (\w+ [^#\n]*?) *(?:#.*)?$", text, re.MULTILINE)
    assert len(commands) >= 5
    for name in ("a.h5", "b.h5", "run-0.h5", "run-1.h5"):
        (tmp_path / name).write_bytes((tmp_path / "run.h5").read_bytes())
    for command in commands:
        if "serve" in command or command.startswith("assets"):
            continue  # these stay, or fetch: tests/test_serve.py runs them
        needs_none = command.startswith(("check", "merge", "repair", "show", "verify"))
        needs_none |= "--save" in command or "--html" in command
        save = [] if needs_none else ["--save", "e.json", "--force"]
        words: list[Any] = [Path(sys.executable).with_name("flexrec"), *shlex.split(command), *save]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
