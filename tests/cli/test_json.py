"""`--json`: what docs/json.md says is what is printed, field by field."""

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flexrec.cli.commands import app, assets_app, golden_app
from flexrec.recorder import Recorder
from flexrec.replay.server import assets

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
SCHEMAS = {
    name: json.loads(schema)
    for name, schema in re.findall(r"^## (.+?)$.*?^```json\n(.*?)^```", TEXT, re.M | re.S)
}
TYPES: dict[str, tuple[type, ...]] = {
    "any": (object,),
    "bool": (bool,),
    "int": (int,),
    "null": (type(None),),
    "number": (int, float),
    "str": (str,),
}
COMMANDS = {
    "show run.h5": "show",
    "show run.h5 -k t*": "show",
    "show run.h5 --model": "show --model",
    "show run.h5 --console": "show --console",
    "verify killed.h5": "verify",
    "verify torn.h5": "verify",
    "repair killed.h5 --keep-original": "repair",
    "merge run.h5 other.h5 --into merged.h5": "merge",
    "import log.csv -o imported": "import",
    "export run.h5 -o run.csv": "export",
    "export run.h5 other.h5 -o dataset": "export",
    "replay run.h5 other.h5 -p loss --save env.json": "replay",
    "replay run.h5 --html page.html": "replay",
    "replay run.h5 other.h5 --alarms alarms.toml": "replay --alarms",
    "replay . --alarms alarms.toml": "replay --alarms",
    "runs .": "runs",
    "show .": "runs",
    "runs run.h5 --columns name,train_loss.last": "runs",
    "tag run.h5 good best": "tag",
    "presets": "presets",
    "meters": "presets",
    "plots": "presets",
    "presets loss": "presets NAME",
    "meters MSEMeter": "presets NAME",
    "plots line": "presets NAME",
    "assets status": "assets status",
    "assets bundle page.zip": "assets bundle",
    "golden learn run.h5 other_values.h5 -o learnt.json": "golden learn",
    "check run.h5 --golden plots.json": "check",
    "check other_values.h5 --golden plots.json": "check",
    "check --run run.h5 --golden run.json": "check --run",
    "check --run other_values.h5 --golden run.json": "check --run",
    "diff run.h5 other.h5": "diff",
    "diff run.h5 other_values.h5": "diff",
    "diff resumed.h5": "diff RECORDING",
    "diff --ranks run.h5 other_values.h5": "diff --ranks",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recordings."""
    folder = tmp_path_factory.mktemp("json")
    for name in ("run.h5", "other.h5"):
        with Recorder(folder / name, config={"lr": np.inf}, mode="w") as rec:
            for i in range(3):
                rec.add({"train_loss": [1.0, np.nan, np.inf][i], "0/weights/mean": 0.5})
                rec.add(
                    {
                        "note": "größe",
                        "console/stdout": "a line",
                        "train_mse": (np.ones(2), np.ones(2)),
                    }
                )
                rec.log(i)
            rec.flush()
            (folder / "killed.h5").write_bytes((folder / name).read_bytes())
    (folder / "log.csv").write_text("step,loss\n0,0.5\n1,0.25\n")
    (folder / "alarms.toml").write_text(
        '[alarms.nan]\nkey = "*loss"\nis = "nan"\n'
        '[alarms.high]\nkey = "train_loss"\nabove = 0.5\nat = "log"\n'
    )
    (folder / "torn.h5").write_bytes((folder / "run.h5").read_bytes()[:-100])
    with Recorder(folder / "other_values.h5") as rec:
        for i in range(3):
            rec.add({"train_loss": 1.0 + i, "0/weights/mean": 0.5 + (i == 2)})
            rec.log(i)
    shutil.copy(folder / "run.h5", folder / "resumed.h5")
    with Recorder(folder / "resumed.h5", mode="resume", next_step=0) as rec:
        rec.add({"train_loss": 5.0}, step=0)
    for words in ("run.h5 -g plots.json", "--run run.h5 -g run.json"):
        with contextlib.chdir(folder):
            assert CliRunner().invoke(app, ["check", *words.split(), "--update"]).exit_code == 0
    return folder


def printed(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The value that a command prints."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr(assets, "_at_hand", lambda asset: asset.name.encode())
    done = CliRunner().invoke(app, [*command.split(), "--json"])
    assert done.exit_code in (0, 1), done.output
    assert done.stdout.isascii()
    return json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def check(value: Any, schema: Any, where: str) -> None:
    """Compare a value with a schema, field by field."""
    if isinstance(schema, str):
        kinds = tuple(kind for name in schema.split(" | ") for kind in TYPES[name])
        assert isinstance(value, kinds), f"{where}: {value!r} is no {schema}"
        assert "bool" in schema or schema == "any" or not isinstance(value, bool), where
    elif isinstance(schema, list):
        assert isinstance(value, list), where
        for i, item in enumerate(value):
            check(item, schema[0], f"{where}[{i}]")
    elif next(iter(schema)).startswith("<"):
        for name, item in value.items():
            check(item, next(iter(schema.values())), f"{where}.{name}")
    else:
        assert set(value) == set(schema), where
        for name, item in value.items():
            check(item, schema[name], f"{where}.{name}")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_printed_is_what_the_document_says(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = printed(command, folder, monkeypatch)
    assert found
    check(found, SCHEMAS[COMMANDS[command]], command)


def test_every_schema_is_tried() -> None:
    assert set(COMMANDS.values()) == set(SCHEMAS)


def test_every_command_that_tells_something_has_it() -> None:
    without = {"serve"}  # it tells nothing until it ends
    commands = [*app.registered_commands, *assets_app.registered_commands]
    for command in [*commands, *golden_app.registered_commands]:
        assert command.callback is not None
        name = command.callback.__name__
        assert ("as_json" in command.callback.__annotations__) != (name in without), name


def test_it_is_refused_where_it_would_tell_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for words, why in (
        ("replay run.h5 --serve --json", "--json does nothing with --serve"),
        ("export run.h5 --json", "--json needs a file to write"),
        ("show run.h5 --plot loss --json", "choose one of --plot and --json"),
    ):
        done = CliRunner().invoke(app, words.split(), env={"TERM": "dumb", "COLUMNS": "200"})
        assert done.exit_code == 2
        assert why in done.stderr


def test_the_numbers_are_those_of_the_recording(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = printed("show run.h5", folder, monkeypatch)
    keys = {key["key"]: key for key in found["keys"]}
    loss = keys["train_loss"]
    assert (loss["values"], loss["not_finite"], loss["last"]) == (3, 2, None)
    assert (loss["min"], loss["max"], loss["mean"]) == (1.0, 1.0, 1.0)
    assert keys["note"]["kind"] != "number"
    assert keys["note"]["last"] is None
    assert (found["events"], found["logs"], found["complete"]) == (9, 3, True)
    assert found["config"] == {"lr": None}
    model = printed("show run.h5 --model", folder, monkeypatch)
    assert model["statistics"] == {"0": {"weights": {"mean": 0.5}}}
