"""`flexrec export`: CSV and Parquet out of a recording."""

import csv
import io
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flexrec.cli.commands import app
from flexrec.recorder import ExistsError, OutputError, Recorder, Recording, RecordingError
from flexrec.recorder.storage.series import Series
from flexrec.replay.export import parquet, tables

FLEXREC = Path(sys.executable).with_name("flexrec")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Numbers, texts, a key of both, and arrays."""
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False) as rec:
        for i in range(3):
            rec.add({"loss": 1 / (i + 1), "layer0/mean": float("nan"), "note": 'a,"b"\nc'})
            rec.add(mixed=0.5 if i else "first", pair=(np.ones(2), np.zeros(2)), late=i)
            rec.step()
        rec.log()
    return path


def exported(run: Path, *options: object) -> list[dict[str, str]]:
    """The rows that come out."""
    done = CliRunner().invoke(app, ["export", str(run), *map(str, options)], catch_exceptions=False)
    assert done.exit_code == 0
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_every_value_is_a_row_and_reads_back_exactly(run: Path) -> None:
    rows = exported(run)
    assert [row["key"] for row in rows] == [
        key for key in ("loss", "layer0/mean", "note", "mixed", "late") for _ in range(3)
    ]
    with Recording(run) as recording:
        loss = recording["loss"]
        assert [float(row["value"]) for row in rows[:3]] == loss.value.tolist()
        assert [float(row["time"]) for row in rows[:3]] == loss.time.tolist()
        assert [int(row["step"]) for row in rows[:3]] == [0, 1, 2]
    assert rows[3]["value"] == "NaN"  # polars takes nan for a text
    assert rows[6]["text"] == 'a,"b"\nc'
    assert [(row["value"], row["text"]) for row in rows[9:12]] == [
        ("", "first"),
        ("0.5", ""),
        ("0.5", ""),
    ]


def test_line_breaks_of_every_kind_stay_in_their_row(tmp_path: Path) -> None:
    path, out = tmp_path / "run.h5", tmp_path / "run.csv"
    texts = ["10%\r100%", "a\nb", "a\r\nb", "\r", 'quoted "\r"', "plain"]
    with Recorder(path, facts=False) as rec:
        for text in texts:
            rec.add(note=text)
        rec.add({"key\rof numbers": 0.5})
    exported(path, "-o", out)
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [*texts, ""]
    assert rows[-1]["value"] == "0.5"
    assert rows[-1]["key"] == "key\rof numbers"


def test_numbers_are_numbers_to_every_reader(tmp_path: Path) -> None:
    """The column of values has nothing but numbers, NaN and empty cells, and no quotes."""
    path, out = tmp_path / "run.h5", tmp_path / "run.csv"
    with Recorder(path, facts=False) as rec:
        for value in (0.5, "a text", float("nan"), -float("inf"), "", "NaN"):
            rec.add({"mixed": value, "b\r": 1.0})
        rec.add(plain=float("nan"))
    exported(path, "-o", out)
    with out.open(newline="", encoding="utf-8") as file:
        rows = [
            line.rsplit(",", 2)[1:] for line in file.read().split("\n")[1:-1] if '"b' not in line
        ]
    values = ["0.5", "", "NaN", "-inf", "", "", "NaN"]
    assert rows == list(map(list, zip(values, ["", '"a text"', "", "", '""', '"NaN"', ""])))  # noqa: B905
    table = pa_csv.read_csv(
        out,
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(null_values=[""], quoted_strings_can_be_null=False),
    )
    assert table.schema.field("value").type == pa.float64()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_what_a_spreadsheet_may_run_is_said(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Recorder(path, facts=False) as rec:
        rec.add({"note": text, "fine": "1 = 1", text: -1.0})
    done = subprocess.run([FLEXREC, "export", path], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("flexrec: 2 cells with =, +, - or @ first")
    done = subprocess.run(
        [FLEXREC, "export", path, "-k", "fine"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_a_dash_is_stdout(run: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [FLEXREC, "export", run, "-o", "-"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout == subprocess.check_output([FLEXREC, "export", run], text=True)
    assert list(tmp_path.iterdir()) == [run]


def test_keys_are_chosen_by_name_and_pattern_in_the_recordings_order(run: Path) -> None:
    rows = exported(run, "-k", "late", "-k", "l*")
    assert list(dict.fromkeys(row["key"] for row in rows)) == ["loss", "layer0/mean", "late"]


def test_what_csv_cannot_hold_is_told(run: Path) -> None:
    done = subprocess.run([FLEXREC, "export", run], capture_output=True, text=True, check=True)
    assert done.stderr == (
        "flexrec: not exported (only Python can read them): pair ((float64:1, float64:1))\n"
    )


def test_a_file_is_written_once(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.csv"
    done = CliRunner().invoke(app, ["export", str(run), "-o", str(out), "-k", "loss"])
    assert done.stdout == f"{out}: 3 rows of 1 key\n"
    whole = out.read_text()
    assert whole.startswith("key,step,time,value,text\nloss,0,")
    with pytest.raises(ExistsError, match="exists already"):
        exported(run, "-o", out)
    assert out.read_text() == whole
    exported(run, "-o", out, "--force")
    assert len(out.read_text()) > len(whole)


@pytest.mark.parametrize("name", ["run.csv", "run.parquet"])
def test_no_half_table_is_left(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: object) -> None:
        raise RecordingError("torn")

    monkeypatch.setattr(Recording, "rows", fail)  # which is called when numbers have been written
    out = tmp_path / name
    with pytest.raises(RecordingError, match="torn"):
        exported(run, "-o", out)
    assert list(tmp_path.iterdir()) == [run]
    exported(run, "-o", out, "-k", "loss")
    whole = out.read_bytes()
    with pytest.raises(RecordingError, match="torn"):
        exported(run, "-o", out, "--force")
    assert out.read_bytes() == whole
    assert sorted(tmp_path.iterdir()) == sorted([run, out])


def test_what_a_link_points_to_is_replaced(run: Path, tmp_path: Path) -> None:
    out, link = tmp_path / "1.csv", tmp_path / "latest.csv"
    link.symlink_to(out.name)
    for _ in range(2):
        exported(run, "-o", link, "--force")
        assert link.is_symlink()
        assert out.read_text().startswith("key,step,time,value,text\nloss,0,")


@pytest.mark.parametrize("name", ["run.csv", "run.parquet"])
@pytest.mark.parametrize("blocks", [0, 4, 60])
def test_nothing_is_left_of_a_table_that_no_longer_fits(
    tmp_path: Path, name: str, blocks: int
) -> None:
    path, out = tmp_path / "run.h5", tmp_path / name
    with Recorder(path, facts=False) as rec:
        for value in np.random.default_rng(0).random(4000).tolist():
            rec.add(loss=value)
    script = f"ulimit -f {blocks}; '{FLEXREC}' export '{path}' -o '{out}'"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"flexrec: cannot write {out}: File too large\n"
    assert not out.exists()


@pytest.mark.parametrize("name", ["run.h5", "link.csv", "link.parquet"])
def test_the_recording_is_not_overwritten(run: Path, tmp_path: Path, name: str) -> None:
    whole, out = run.read_bytes(), tmp_path / name
    if out != run:
        out.symlink_to(run)
    with pytest.raises(
        OutputError, match=r"is read here, so it is not written|no table is called \.h5"
    ):
        exported(run, "-o", out, "--force")
    assert run.read_bytes() == whole


@pytest.mark.parametrize("name", ["run.xlsx", "run.tsv", "run.csv.gz", "run.json"])
def test_a_table_of_another_kind_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"there are \.csv and \.txt, for CSV, and \.parquet"):
        exported(run, "-o", tmp_path / name, "--force")
    assert list(tmp_path.iterdir()) == [run]


@pytest.mark.parametrize("name", ["run.CSV", "run.txt", "run"])
def test_csv_is_called_csv_txt_or_nothing(run: Path, tmp_path: Path, name: str) -> None:
    exported(run, "-o", tmp_path / name)
    assert (tmp_path / name).read_text().startswith("key,step,time,value,text\n")


def test_an_unknown_key_and_a_folder_that_is_not_there_are_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"no key that fits 'lss'; there are loss, layer0"):
        exported(run, "-k", "lss")
    with pytest.raises(OutputError, match=r"cannot write .*No such file"):
        exported(run, "-o", tmp_path / "none" / "run.csv")


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path: Path) -> None:
    path = tmp_path / "long.h5"
    with Recorder(path, facts=False) as rec:
        for i in range(20_000):
            rec.add(loss=i)
    script = f"'{FLEXREC}' export '{path}' | head -n 2"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


def columns(run: Path, out: Path, *options: object) -> dict[str, list[Any]]:
    """The columns that come out as Parquet, as pyarrow reads them."""
    assert exported(run, "-o", out, *options) == []
    found: dict[str, list[Any]] = pq.read_table(out).to_pydict()
    return found


def test_parquet_has_a_type_for_each_column(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.PARQUET"
    assert columns(run, out)
    assert pq.read_schema(out).equals(
        pa.schema(
            [
                pa.field("key", pa.dictionary(pa.int32(), pa.string()), nullable=False),
                pa.field("step", pa.int64(), nullable=False),
                pa.field("time", pa.float64(), nullable=False),
                pa.field("value", pa.float64()),
                pa.field("text", pa.string()),
            ]
        )
    )


def test_parquet_has_the_rows_of_csv(run: Path, tmp_path: Path) -> None:
    rows, found = exported(run), columns(run, tmp_path / "run.parquet")
    assert found["key"] == [row["key"] for row in rows]
    assert found["step"] == [int(row["step"]) for row in rows]
    assert found["time"] == [float(row["time"]) for row in rows]
    texts = [text is not None for text in found["text"]]
    assert texts == [False] * 6 + [True] * 4 + [False] * 5
    assert [value is None for value in found["value"]] == texts
    assert [text or "" for text in found["text"]] == [row["text"] for row in rows]
    shown = ["" if value is None else str(value).replace("nan", "NaN") for value in found["value"]]
    assert shown == [row["value"] for row in rows]


def test_parquet_keeps_every_number_and_text_and_nan_is_no_null(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    numbers = [np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1, 2.0**53]
    texts = ["", "ünï → 漢字 🙂", 'a,"b"\n\0', "nan"]
    with Recorder(path, facts=False) as rec:
        for number in numbers:
            rec.add({"größe/μ": number})
        for value in [*numbers, *texts]:
            rec.add(mixed=value)
            rec.step()
        rec.add(lone="\udfff")
    found = columns(path, tmp_path / "run.parquet")
    assert found["key"] == ["größe/μ"] * 8 + ["mixed"] * 12 + ["lone"]
    assert found["step"] == [0] * 8 + [*range(12)] + [12]
    for got in (found["value"][:8], found["value"][8:16]):
        assert np.array(got, np.float64).tobytes() == np.array(numbers).tobytes()
    assert found["value"][16:] == [None] * 5
    assert found["text"] == [None] * 16 + [*texts, "\\udfff"]


def test_parquet_of_chosen_keys_and_of_none(run: Path, tmp_path: Path) -> None:
    found = columns(run, tmp_path / "some.parquet", "-k", "late", "-k", "l*")
    assert list(dict.fromkeys(found["key"])) == ["loss", "layer0/mean", "late"]
    none = columns(run, tmp_path / "none.parquet", "-k", "pair")
    assert none == {"key": [], "step": [], "time": [], "value": [], "text": []}


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hundred rows of each of three keys, where ten rows are a piece, and forty a row group."""
    monkeypatch.setattr(tables, "_ROWS", 10)
    monkeypatch.setattr(parquet, "_ROWS", 40)
    path = tmp_path / "long.h5"
    with Recorder(path, facts=False) as rec:
        for i in range(100):
            rec.add(a=i, note=f"text {i}", b=-i)
            rec.step()
    return path


def test_parquet_is_written_in_row_groups(long: Path, tmp_path: Path) -> None:
    out = tmp_path / "long.parquet"
    found = columns(long, out)
    metadata = pq.read_metadata(out)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [
        *[40] * 7,
        20,
    ]
    assert found["key"] == ["a"] * 100 + ["note"] * 100 + ["b"] * 100
    assert found["value"] == [*range(100), *[None] * 100, *range(0, -100, -1)]
    assert found["text"][100:200] == [f"text {i}" for i in range(100)]
    keys = metadata.row_group(6).column(0).statistics  # by which readers skip row groups
    assert (keys.min, keys.max) == ("b", "b")


def test_no_more_than_two_row_groups_are_in_memory(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, seen, most = tables.table_pieces, list[weakref.ref[Any]](), 0

    def watched(run: Recording, keys: list[str]) -> Iterator[Series]:
        nonlocal most
        for piece in pieces(run, keys):
            seen.append(weakref.ref(piece.time))
            most = max(most, sum(ref() is not None for ref in seen))
            yield piece

    monkeypatch.setattr(tables, "table_pieces", watched)
    columns(long, tmp_path / "long.parquet")
    assert len(seen) == 30
    assert 4 <= most <= 9


def test_long_texts_are_fewer_in_a_piece_and_in_a_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_CHARACTERS", 1000)
    monkeypatch.setattr(parquet, "_BYTES", 5000)
    path, out = tmp_path / "run.h5", tmp_path / "run.parquet"
    texts = [f"{i:02} " * 100 for i in range(40)]
    with Recorder(path, facts=False) as rec:
        for text in texts:
            rec.add(note=text)
    with Recording(path) as recording:
        assert [len(piece) for piece in tables.table_pieces(recording, ["note"])] == [4] * 10
    assert columns(path, out)["text"] == texts
    assert pq.read_metadata(out).num_row_groups == 3


def test_without_pyarrow_csv_works_and_parquet_says_what_to_install(
    run: Path, tmp_path: Path
) -> None:
    start = "import sys; sys.modules['pyarrow'] = None; from flexrec.cli import main; main()"

    def export(out: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", start, "export", str(run), "-o", str(out), "--force"],
            capture_output=True,
            text=True,
            check=False,
        )

    assert export(tmp_path / "run.csv").returncode == 0
    out = tmp_path / "run.parquet"
    out.write_text("what was there")
    done = export(out)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "flexrec: Parquet needs pyarrow, which is not installed: pip install 'pyarrow>=16.1'; "
        "CSV needs nothing: a name that ends in .csv\n"
    )
    assert out.read_text() == "what was there"


def test_csv_imports_no_pyarrow(run: Path) -> None:
    script = (
        "import sys; from flexrec.cli.commands import app\n"
        "app(sys.argv[1:], standalone_mode=False); print('pyarrow' in sys.modules)"
    )
    command = [sys.executable, "-c", script, "export", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nFalse\n")
