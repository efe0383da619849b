"""Errors: by cause, with hints in Python's words, the same on the other side of a process."""

import ast
import inspect
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from flexrec.recorder import (
    DamagedError,
    ExistsError,
    FlexrecError,
    GoldenError,
    MissingDependency,
    OutputError,
    RecordingError,
    UnknownKeyError,
    errors,
)
from flexrec.recorder.errors import nearest
from flexrec.recorder.files.atomic_write import ANYTHING, replacing, writing

ROOT = Path(__file__).resolve().parent.parent.parent
LONG_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, FlexrecError)
]


def test_errors_are_pythons_own_too() -> None:
    assert issubclass(OutputError, OSError)
    assert issubclass(ExistsError, FileExistsError)
    assert issubclass(MissingDependency, ImportError)
    assert issubclass(UnknownKeyError, KeyError)
    assert issubclass(DamagedError, RecordingError)
    assert not issubclass(OutputError, RecordingError)
    assert not issubclass(GoldenError, ValueError)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_says_its_message_and_its_hint(kind: type[FlexrecError]) -> None:
    assert str(kind("it is so")) == kind("it is so").message == "it is so"
    error = kind("it is so", hint="do this")
    assert str(error) == "it is so; do this"
    assert error.message == "it is so"
    assert kind().message == str(kind()) == ""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_comes_whole_out_of_another_process(kind: type[FlexrecError]) -> None:
    error = pickle.loads(pickle.dumps(kind("it is so", hint="do this")))  # noqa: S301 - our own
    assert type(error) is kind
    assert (str(error), error.hint) == ("it is so; do this", "do this")


@pytest.mark.parametrize("error", [ExistsError.of("a"), DamagedError.of("a", "b")], ids=repr)
def test_what_is_made_of_a_path_does_too(error: FlexrecError) -> None:
    found = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(found), str(found)) == (type(error), str(error))


def test_what_to_install_is_what_the_extras_promise() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = told["optional-dependencies"]
    promised = {wanted for extra in extras.values() for wanted in extra}
    for package, wanted in errors.REQUIREMENTS.items():
        assert package == "pandas" or set(wanted) <= promised
        message = str(MissingDependency.of("it", package))
        assert f"it needs {package}, which is not installed: pip install '{package}" in message
        assert "flexrec" not in message, "it may be on no index"


def test_a_package_that_cannot_be_imported_is_not_said_to_be_missing() -> None:
    why = "libx.so: failed to map segment from shared object"
    try:
        raise ImportError(why)
    except ImportError:
        error = MissingDependency.of("an HTML page", "plotly")
    assert str(error) == f"an HTML page needs plotly, which cannot be imported: {why}"


@pytest.mark.parametrize(
    ("name", "found"), [("loss.mn", "loss.min"), ("Loss.mn", "Loss.min"), ("lossmin", "loss.min")]
)
def test_of_names_that_differ_in_case_the_nearest_is_named(name: str, found: str) -> None:
    assert nearest(name, ["loss.min", "Loss.min", "step"]) == f"; did you mean {found!r}?"
    assert nearest(name, ["Loss.min", "loss.min", "step"]) == f"; did you mean {found!r}?"


def test_a_system_that_refuses_to_write_is_told_with_its_number(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write it: No such file") as caught, writing("it"):
        (tmp_path / "none" / "it").write_text("")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert caught.value.errno == caught.value.__cause__.errno


def test_what_is_there_is_told_with_pythons_argument(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_text("there")
    wanted = f"{path} exists already; overwrite=True overwrites it"
    with pytest.raises(ExistsError, match=re.escape(wanted)), replacing(path, ANYTHING):
        pass
    with pytest.raises(OutputError, match="is a folder"), replacing(tmp_path, ANYTHING):
        pass


def texts(path: Path) -> Iterator[str]:
    """All texts in a file's code, docstrings too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_lower_floors_name_no_options_of_the_command_line() -> None:
    """The plugin's option is pytest's, and its own; git's and npm's are arguments of theirs."""
    own = {
        "recorder/writing/opening/git.py",
        "replay/diff/blame/settings.py",  # reads what git printed
        "replay/golden/pytest_plugin.py",
    }
    found = {
        f"{path.relative_to(ROOT)}: {text:.60}"
        for floor in ("recorder", "replay")
        for path in (ROOT / floor).rglob("*.py")
        if str(path.relative_to(ROOT)) not in own
        for text in texts(path)
        if LONG_FLAG.search(text) and not LONG_FLAG.fullmatch(text)
    }
    assert not found


@pytest.mark.parametrize("module", ["flexrec", "flexrec.recorder"])
def test_a_watched_model_without_torch_says_what_to_install(module: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from flexrec.recorder import MissingDependency\n"
        f"try: from {module} import TooledModel\n"
        "except MissingDependency as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wanted = "TooledModel needs torch, which is not installed: pip install 'torch>=2.6'\n"
    assert done.stdout == wanted


@pytest.mark.parametrize("call", ["watch(object())", "fingerprint(loss=1.0)"])
def test_what_needs_torch_of_a_recorder_says_what_to_install(tmp_path: Path, call: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from flexrec.recorder import MissingDependency, Recorder\n"
        "rec = Recorder('run.h5', facts=False)\n"
        f"try: rec.{call}\n"
        "except MissingDependency as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "needs torch, which is not installed: pip install 'torch>=2.6'" in done.stdout
