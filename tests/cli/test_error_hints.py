"""What the command line makes of errors: one line, hints as options, the right exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

from flexrec.cli.output import error_text
from flexrec.recorder import (
    ExistsError,
    FlexrecError,
    GoldenError,
    Recorder,
    RecordingError,
    ServerError,
)
from support.commands import fails


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RecordingError("overwrite=True is part of a message"),) * 2,
        (ExistsError.of("a.h5"), "a.h5 exists already; --force overwrites it"),
        (GoldenError("none", hint="update=True writes it"), "none; --update writes it"),
        (ServerError("none", hint="give it as bundle=PATH"), "none; give it as --assets PATH"),
        (RecordingError("bad", hint="keys= chooses others"), "bad; -k chooses others"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_hint_is_said_as_an_option(error: FlexrecError, text: object) -> None:
    assert error_text(error) == str(text)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with Recorder(tmp_path / "run.h5", facts=False) as rec:
        for i in range(5000):
            rec.add(train_loss=i * 0.37)
        rec.log()
    return rec.path


def test_a_file_that_is_there_is_told_with_the_option(run: Path) -> None:
    for command in (
        ("export", run, "-o", run.with_name("run.csv")),
        ("merge", run, "--into", run.with_name("merged.h5")),
        ("replay", run, "-p", "loss", "--save", run.with_name("run.json")),
    ):
        subprocess.run([Path(sys.executable).with_name("flexrec"), *command], check=True)
        assert fails(*command) == f"{command[-1]} exists already; --force overwrites it"


def test_a_damaged_key_is_told_with_the_option(run: Path) -> None:
    import h5py

    with h5py.File(run) as file:
        info = file["series/train_loss/value"].id.get_chunk_info(0)
    data = bytearray(run.read_bytes())
    data[info.byte_offset + info.size // 2] ^= 0x10
    run.write_bytes(data)
    assert fails("show", run).endswith("key 'train_loss'; -k chooses others")


def test_want_of_memory_is_told_in_a_line(run: Path) -> None:
    code = (
        "import sys, flexrec.recorder.storage.closed_store as store; from flexrec.cli import main\n"
        "def fail(*_): raise MemoryError('Unable to allocate')\n"
        "store.ClosedStore.chunks = store.ClosedStore._columns = fail\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "show", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "flexrec: out of memory\n")
    done = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
