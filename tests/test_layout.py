"""The house: which way dependencies point, who imports what, and what is public.

A folder's `__init__` names in DOORS the files that other folders may import; it imports none of
them itself, so that whoever opens a door pays for that one alone. Four packages give names instead,
for users: flexrec, flexrec.recorder, flexrec.replay and their folders meters and sinks.
"""

import ast
import functools
import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("recorder", "replay", "cli")  # from the ground up
ENTRIES, LEVELS = 12, 6  # of a folder, at most
DEEPER = {"recorder": 7}  # docs/benchmarks.md says why
INTEGRATIONS = "recorder/integrations/"
ONLY = {  # module → the files, or folders, that may import it at all
    "accelerate": {f"{INTEGRATIONS}accelerate.py"},
    "fsspec": {"recorder/files/remote.py"},
    "ignite": {f"{INTEGRATIONS}ignite.py"},
    "keras": {f"{INTEGRATIONS}keras.py"},
    "lightning": {f"{INTEGRATIONS}lightning.py"},
    "matplotlib": {f"{INTEGRATIONS}tensorboard.py"},
    "mlflow": {"replay/export/mlflow.py"},
    "skorch": {f"{INTEGRATIONS}skorch.py"},
    "tensorboard": {
        f"{INTEGRATIONS}importing/tensorboard.py",
        "replay/export/tensorboard.py",
    },
    "trackio": {"replay/export/trackio.py"},
    "transformers": {f"{INTEGRATIONS}transformers.py"},
    "torch": {"recorder/layers/", "recorder/writing/values/accelerator.py"},
    "visdom": {"replay/sinks/visdom.py"},
    "psutil": {"recorder/writing/surroundings/machine.py"},
    "pynvml": {"recorder/writing/surroundings/machine.py"},
    "plotly": {"replay/sinks/notebook.py"},  # else its JavaScript alone is read
    "distributed": {"replay/runs/workers/"},
    "IPython": {"replay/sinks/notebook.py"},
    "pyarrow": {"replay/export/parquet.py", f"{INTEGRATIONS}importing/parquet.py"},
    "tornado": {"replay/server/process.py"},
    "uniplot": {"cli/drawing/text_plot.py"},
    "wandb": {f"{INTEGRATIONS}importing/wandb.py", "replay/export/wandb.py"},
    "yaml": {f"{INTEGRATIONS}importing/mlflow.py"},
}
TORCH_PRIVATE = re.compile(
    r"torch(\.\w+)*\._[a-zA-Z]\w+|\"_per_optimizer_states\"|\"_scale\"|_is_replica|_orig_mod|_call_impl"
    r"|\._forward_(pre_)?hooks"
)


def sources() -> list[Path]:
    """Every file of the three floors."""
    return sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def folders() -> list[Path]:
    """Every folder of the three floors."""
    found = (path for floor in FLOORS for path in (ROOT / floor).rglob("__init__.py"))
    return sorted(path.parent for path in found)


def shown(path: Path) -> str:
    """A path as the house's plan has it."""
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """The module that a file is."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("flexrec", *(part for part in parts if part != "__init__")))


@functools.cache
def modules() -> dict[str, Path]:
    """The file of each module."""
    return {module_of(path): path for path in sources()}


@functools.cache
def tree(path: Path) -> ast.Module:
    """A file's syntax."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """What a file imports anywhere in it: lazily and for type checkers alone, too.

    Of `from a import b` that is `a.b` where this is a module of ours, else `a`.
    """
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            module = node.module or ""
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in modules() else module


@functools.cache
def ours(module: str) -> frozenset[str]:
    """The modules of flexrec that one of them imports."""
    return frozenset(name for name in imports(modules()[module]) if name in modules())


def levels(graph: dict[str, set[str]]) -> dict[str, int]:
    """How deep each node stands above those that it needs; fails at a circle."""
    found: dict[str, int] = {}

    def level(node: str, above: tuple[str, ...]) -> int:
        assert node not in above, f"a circle: {' → '.join((*above, node))}"
        if node not in found:
            below = [level(other, (*above, node)) for other in sorted(graph.get(node, ()))]
            found[node] = 1 + max(below, default=0)
        return found[node]

    for node in graph:
        level(node, ())
    return found


def test_there_are_sources() -> None:
    assert len(sources()) > 100
    assert sum(len(ours(module)) for module in modules()) > 400


def test_no_import_goes_up_the_floors() -> None:
    for module in modules():
        floor = FLOORS.index(module.split(".")[1])
        for name in imports(modules()[module]):
            if name.startswith("flexrec."):
                assert FLOORS.index(name.split(".")[1]) <= floor, f"{module} imports {name}"
            assert name != "flexrec", f"{module} imports the whole package"


def test_there_is_no_circle_of_files() -> None:
    levels({module: set(ours(module)) for module in modules()})


def within(folder: Path) -> dict[str, set[str]]:
    """Which entries of a folder, files and folders, import which others."""
    graph = defaultdict[str, set[str]](set)
    prefix = f"{module_of(folder / '__init__.py')}."
    for module in modules():
        if module.startswith(prefix):
            entry = module.removeprefix(prefix).split(".")[0]
            graph[entry] |= {
                name.removeprefix(prefix).split(".")[0]
                for name in ours(module)
                if name.startswith(prefix)
            } - {entry}
    return graph


@pytest.mark.parametrize("folder", folders(), ids=shown)
def test_imports_go_down_the_page_within_a_folder(folder: Path) -> None:
    found = levels(within(folder))
    most = DEEPER.get(shown(folder), LEVELS)
    assert max(found.values(), default=0) <= most, sorted(found.items(), key=lambda item: item[1])


@pytest.mark.parametrize("folder", folders(), ids=shown)
def test_a_folder_is_no_larger_than_can_be_seen_at_once(folder: Path) -> None:
    left_out = {"__init__.py", "__pycache__"}
    entries = sorted(path.name for path in folder.iterdir() if path.name not in left_out)
    assert len(entries) <= ENTRIES, entries


@pytest.mark.parametrize("folder", folders(), ids=shown)
def test_a_folder_says_what_it_is(folder: Path) -> None:
    assert ast.get_docstring(tree(folder / "__init__.py"))


def doors(package: str) -> set[str]:
    """What a package's `__init__` names as its doors."""
    for node in tree(modules()[package]).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DOORS":
            return set(ast.literal_eval(node.value))
    return set()


def through(module: str) -> Iterator[tuple[str, str]]:
    """The doors that a module's imports go through: a package, and an entry of it."""
    path = modules()[module]
    home = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for name in ours(module):
        parts = name.split(".")
        for i in range(2, len(parts)):
            package = ".".join(parts[:i])
            if f"{home}.".startswith(f"{package}."):
                continue  # it is at home there
            yield package, parts[i]


def test_neighbours_come_in_by_the_doors() -> None:
    used = defaultdict[str, set[str]](set)
    for module in modules():
        for package, entry in through(module):
            assert entry in doors(package), f"{module} imports {entry} of {package}, no door of it"
            used[package].add(entry)
    for package, path in modules().items():
        if path.name == "__init__.py":
            assert doors(package) == used[package], f"{package}: doors that nobody uses"


@pytest.mark.parametrize("module", sorted(ONLY))
def test_heavy_modules_have_few_owners(module: str) -> None:
    owners = tuple(ONLY[module])
    importers = [
        shown(path)
        for path in sources()
        if any(name.split(".")[0] == module for name in imports(path))
    ]
    assert [name for name in importers if not name.startswith(owners)] == []


FRAMEWORKS = ("accelerate", "ignite", "keras", "lightning", "skorch", "transformers")


def test_adapters_need_one_file_of_ours_and_are_small() -> None:
    for name in FRAMEWORKS:
        module = f"flexrec.recorder.integrations.{name}"
        assert "flexrec.recorder.integrations.hooked_recorder" in ours(module)
        path = modules()[module]
        adapters = [node for node in tree(path).body if isinstance(node, ast.ClassDef)]
        assert len(path.read_text("utf-8").splitlines()) <= 60 * len(adapters), module


def test_torchs_private_names_are_in_one_file() -> None:
    found = {shown(path) for path in sources() if TORCH_PRIVATE.search(path.read_text("utf-8"))}
    assert found == {"recorder/layers/torch_private.py"}


def test_importing_the_sides_imports_nothing_heavy() -> None:
    code = (
        "import sys, flexrec, flexrec.recorder, flexrec.replay, flexrec.replay.sinks\n"
        "heavy = {'torch', 'visdom', 'scipy', 'sklearn', 'requests', 'h5py', 'numpy', 'typer'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


PUBLIC = {
    "flexrec": """
        FlexLogger Recorder Recording Runs SummaryWriter TooledModel TooledModelLogger __version__
        define diff get_preset_logger load_toml meter_info meter_types play plot_info plot_types
        preset preset_info preset_names
    """,
    "flexrec.recorder": """
        DamagedError DefinitionError ExistsError FlexrecError GoldenError InputError MeterError
        MissingDependency NotARecordingError OutputError QueryError Recorder Recording
        RecordingError Series ServerError TooledModel UnknownKeyError VersionError WorkerError
        merge_recordings
    """,
    "flexrec.replay": """
        Alarm Definitions FlexLogger Runs TooledModelLogger Trace Window compare define
        define_alarms get_preset_logger load_alarms load_toml meter_info meter_types play
        play_alarms plot_info plot_types preset preset_info preset_names snapshot
    """,
    "flexrec.replay.meters": """
        APMeter AUCMeter AverageValueMeter BestValueMeter ClassErrorMeter ConfusionMeter
        HistogramMeter ImageMeter InformationMeter LastValueMeter MSEMeter Meter MetricMeter
        MovingAverageValueMeter TextMeter TimeMeter build mAPMeter meter_info meter_types
        resolve
    """,
    "flexrec.replay.sinks": "EnvFileSink HtmlSink ListSink Sink VisdomSink",
    "flexrec.cli": "main",
}


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_the_public_surface_is_pinned(module: str) -> None:
    loaded = importlib.import_module(module)
    assert list(loaded.__all__) == PUBLIC[module].split()
    for name in loaded.__all__:
        if name != "TooledModel":  # needs torch
            assert hasattr(loaded, name), name
    assert set(loaded.__all__) <= set(dir(loaded)), "what an editor or IPython completes"
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = loaded.no_such_name


def test_all_else_is_internal() -> None:
    with_all = {
        module
        for module, path in modules().items()
        if any(
            isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            for node in tree(path).body
        )
    }
    assert with_all == set(PUBLIC) - {"flexrec"}


def test_public_classes_and_functions_are_documented() -> None:
    for module in PUBLIC:
        loaded = importlib.import_module(module)
        for name in loaded.__all__:
            if name not in ("TooledModel", "__version__"):
                assert getattr(loaded, name).__doc__, name


def test_the_package_tells_its_version_and_its_names() -> None:
    flexrec = importlib.import_module("flexrec")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", flexrec.__version__)
    assert set(PUBLIC["flexrec"].split()) <= set(dir(flexrec))


def test_the_package_is_the_command() -> None:
    command = [sys.executable, "-m", "flexrec", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "replay" in done.stdout


def test_the_package_links_to_the_floors() -> None:
    for floor in FLOORS:
        link = ROOT / "src" / "flexrec" / floor
        assert link.readlink() == Path("..", "..", floor)
        assert link.resolve() == ROOT / floor


def test_tests_and_benchmarks_share_helpers_alone() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        for name in imports(path):
            assert not re.search(r"\bbenchmarks\b|\btest_", name), f"{path} imports {name}"
            assert not (ROOT / "benchmarks" / f"{name}.py").is_file(), f"{path} imports {name}"
    for path in (ROOT / "benchmarks").rglob("*.py"):
        assert not [name for name in imports(path) if name.startswith(("test_", "conftest"))], path


def test_every_data_file_is_packaged() -> None:
    """Folders are found by setuptools; what is no Python has to be named."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    data = told["setuptools"]["package-data"]
    for path in (path for floor in FLOORS for path in (ROOT / floor).rglob("*") if path.is_file()):
        if "__pycache__" not in path.parts and path.suffix != ".py":
            package = ".".join(["flexrec", *path.relative_to(ROOT).parent.parts])
            assert path.name in set(data.get(package, ())), path


def test_the_list_for_machines_names_every_document_and_its_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "llms.txt").read_text(encoding="utf-8")
    named = re.findall(r"\]\(([\w./]+)\)", text)
    assert set(named) == {path.name for path in (ROOT / "docs").glob("*.md")} | {
        "../README.md",
        "../CHANGELOG.md",
        "../CONTRIBUTING.md",
    }
    assert all((ROOT / "docs" / name).is_file() for name in named)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)  # noqa: S102 - our own document
    assert [window.win for window in names["windows"]] == ["loss"]


def test_the_readme_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block runs by itself, in a folder where the blocks above it ran."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        code = compile(block, "README.md", "exec")
        if "get_preset_logger(" in block:  # no server listens here: it must only warn
            with pytest.warns(RuntimeWarning, match="kept in memory|could not be sent"):
                exec(code, {})  # noqa: S102 - our own README
        else:
            exec(code, {})  # noqa: S102 - our own README
        if "load_state_dict(" in block:  # the first time there was no checkpoint
            exec(code, {})  # noqa: S102 - our own README
    assert (tmp_path / "run.h5").exists()
    (tmp_path / "plots.toml").write_text(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0])
    commands = re.findall(r"^flexrec (\w+ [^#\n]*?) *(?:#.*)?$", text, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        if "serve" in command or command.startswith("assets"):
            continue  # these stay, or fetch: tests/cli/test_serving.py runs them
        without = ("check", "diff", "export", "merge", "repair", "runs", "show", "verify")
        needs_none = command.startswith(without)
        needs_none |= "--save" in command or "--html" in command
        save = [] if needs_none else ["--save", "e.json", "--force"]
        given = [name for word in shlex.split(command) for name in sorted(glob(word)) or [word]]
        words: list[Any] = [Path(sys.executable).with_name("flexrec"), *given, *save]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        differ = command == "diff first.h5 run.h5"
        assert done.returncode == differ, f"{command}: {done.stderr}"


def named_in_the_table() -> Iterator[str]:
    """The files in the right column of the table in docs/architecture.md.

    A name without a folder is in the folder of the name before it.
    """
    for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        folder = ""
        for name in re.findall(r"`([^`]+\.(?:py|js))`", line.split(" | ")[-1]):
            folder = name.rpartition("/")[0] or folder
            yield f"{folder}/{name.rpartition('/')[2]}"


def test_the_table_of_files_is_whole() -> None:
    found = {str(path.relative_to(ROOT)) for path in modules().values()}
    listed = {name for name in named_in_the_table() if name.startswith(FLOORS)}
    assert {name for name in found if not name.rpartition("/")[2].startswith("__")} <= listed
    assert all((ROOT / name).is_file() for name in listed)
