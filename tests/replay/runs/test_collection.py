"""Many recordings as a table: which rows, which columns, which states; and what runs say of it."""

import json
import math
from pathlib import Path
from typing import Any

import h5py
import pytest

import flexrec
from flexrec.recorder import QueryError, Recorder, Recording, RecordingError
from flexrec.replay import Runs
from flexrec.replay.runs import collection
from flexrec.replay.runs.tags import tag
from support.crashing import crash


def cells(runs: Runs, *columns: str) -> list[tuple[object, ...]]:
    """The rows of some columns."""
    return list(runs.table(columns).rows)


def test_a_row_a_run_with_what_differs(exp: Path) -> None:
    runs = flexrec.Runs(exp)
    assert len(runs) == 4
    assert [path.relative_to(exp).as_posix() for path in runs] == [
        "lr0.01/seed0.h5",
        "lr0.01/seed1.h5",
        "lr0.1/seed0.h5",
        "lr0.1/seed1.h5",
    ]
    table = runs.table()
    assert table.columns[:6] == ("name", "state", "started", "seconds", "config.lr", "config.seed")
    assert {"train_loss.last", "train_loss.min", "test_acc.max"} <= set(table.columns)
    assert not {"config.same", "config.opt.name"} & set(table.columns)
    assert str(table).splitlines()[2].startswith("lr0.01/seed0")
    assert repr(runs) == str(table)
    assert "<td>lr0.01/seed0</td>" in runs._repr_html_()
    with Recording(runs.paths[0]) as run:
        series = run["train_loss"]
        assert cells(runs, "train_loss.last", "train_loss.mean")[0] == (
            series.value[-1],
            series.value.sum() / len(series.value),
        )


def test_of_many_runs_the_first_are_shown(exp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "_SHOWN", 3)
    runs = Runs(exp)
    assert repr(runs).splitlines()[-1] == "and 1 more run; table() has all"
    assert "lr0.1/seed1" not in repr(runs)
    assert runs._repr_html_().count("<tr>") == 1 + 3
    assert runs._repr_html_().endswith("<p>and 1 more run; table() has all</p>")
    assert len(runs.table().rows) == 4
    assert repr(runs.limit(3)) == str(runs.limit(3).table())


def test_runs_are_chosen_sorted_and_cut(exp: Path) -> None:
    runs = Runs(exp)
    chosen = runs.where("config.lr < 0.05 and test_acc.max > 3").where("state = 'closed'")
    assert cells(chosen.sort("test_acc.max desc"), "name") == [("lr0.01/seed1",), ("lr0.01/seed0",)]
    assert cells(chosen.sort("name desc").limit(1), "name") == [("lr0.01/seed1",)]
    assert cells(chosen.select("config.seed = 0", None, None), "name") == [("lr0.01/seed0",)]
    assert cells(chosen.select(None, "name desc", 1), "name") == [("lr0.01/seed1",)]
    assert len(runs) == 4  # as it was
    assert len(runs.where("config.opt.name = 'adam' and name like 'lr0.1/%'")) == 2
    assert len(runs.where('m1/loss.last = 2 and "my-key".last = 1 and "my-key.min" > 0')) == 4
    assert len(runs.where("train_loss.last/train_loss.max < 0.9 and my-key.last-1 = 0")) == 4
    assert len(runs.where("test_acc.max > 1e1 or test_acc.max between .5 and 5")) == 4
    with pytest.raises(
        QueryError, match=r"no run has a column 'config\.lrr'; did you mean 'config\.lr'"
    ):
        runs.where("config.lrr < 1")
    with pytest.raises(QueryError, match=r"no run has a column 'loss\.max'; did you mean"):
        runs.table(["loss.max"])


def test_tags_errors_and_times_are_columns_if_no_run_has_any(exp: Path, tmp_path: Path) -> None:
    runs = Runs(exp)
    assert len(runs.where("error is null and NOT tags like '%bad%' is true")) == 4
    assert len(runs.where("tags = 'bad' or note > 'a'").sort("note desc, name")) == 0
    assert cells(runs.limit(1), "name", "tags", "error") == [("lr0.01/seed0", None, None)]
    assert runs.group("tags").groups == {"tags=none": runs.paths}
    assert not {"tags", "note", "error"} & {*runs.columns, *runs.table().columns}
    (tmp_path / "empty").mkdir()
    assert len(Runs(tmp_path / "empty").where("state = 'closed' and started > '2026'")) == 0
    with pytest.raises(QueryError, match="no run can be the best: none has a value of note"):
        runs.play(flexrec.preset("loss"), best="note")
    with pytest.raises(QueryError, match="no run has a column 'tags1'; did you mean 'tags'"):
        runs.where("tags1 is null")


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        (
            "config.lr < '0.1'",
            r"config\.lr has numbers, and '0\.1' is a text.*write config\.lr < 0\.1,",
        ),
        ("(config.lr) < ('0.1')", r"config\.lr has numbers, and '0\.1' is a text"),
        ("'5' <= test_acc.max", r"write test_acc\.max >= 5, without"),
        (
            "config.seed not in (0, '1')",
            r"config\.seed has numbers, and '1' is .* write 1, without",
        ),
        ("config.lr between 0 and '1'", r"config\.lr has numbers.* write 1, without"),
        ("config.lr is not 'auto'", r"compare it with a number \(1 is true"),
        ("config.seed + config.lr = '1'", r"config\.lr has numbers"),
        ("iif(config.lr == '0.1', 1, 0)", r"write config\.lr == 0\.1"),
        ("config.opt.name = 5", r"config\.opt\.name has texts, and 5 is a number.*name = '5'"),
        ("name > 1", r"write name > '1'"),
        ("started >= 2026", r"write started >= '2026'"),
    ],
)
def test_numbers_are_not_compared_with_texts(exp: Path, expression: str, says: str) -> None:
    with pytest.raises(QueryError, match=says):
        Runs(exp).where(expression)
    with pytest.raises(QueryError, match=says):
        Runs(exp).sort(f"{expression} desc")


def test_texts_and_numbers_in_one_column(exp: Path) -> None:
    with Recorder(exp / "other.h5", config={"lr": "auto", "seed": -1}) as rec:
        rec.add(loss=1.0)
    for expression, count in (
        ("config.lr = 'auto'", 1),
        ("config.lr < 0.05", 2),
        ("config.lr > 0.05", 2),
        ("not config.lr < 0.05", 2),
        ("0.05 <= config.lr", 2),
        ("config.lr not between 0.05 and 1", 2),
        ("config.lr * 2 < 1", 4),
        ("abs(config.lr) < 1", 4),
        ("(config.lr) > 0.05", 2),
        ("0.05 < ((config.lr))", 2),
        ("-(config.lr) < 0", 4),
        ("(config.lr) = 'auto' and (config.lr) >= ('a')", 1),
        ("min(0.5, config.lr) < 1", 4),
        ("coalesce(config.lr, 0) > 0.05", 2),
        ("iif(1, nullif(config.lr, 0.1), 0) > 0.05", 0),
        ("(coalesce(config.lr, 0)) > 0.05", 2),
        ("case when config.seed > -9 then config.lr else 0 end > 0.05", 2),
        ("case when config.seed > 9 then 0 else (config.lr) end > 0.05", 2),
        ("case config.seed when -1 then config.lr else 'b' end >= 'a'", 5),
        ("state = 'closed' and config.lr > config.seed", 2),
        ("state = 'closed' and -config.lr < 1", 4),
        ("config.lr + 1 > 0 and 'closed' = state", 4),
        ("-5 between -9 and config.lr", 4),
        ("-5 not between config.lr and 9", 4),
        ("coalesce(config.lr, '') > 'a'", 1),
        ("iif(config.lr = 'auto', 1, 0) > 0", 1),
        ("(config.lr-config.seed) * 2 < 0", 2),
        ("config.seed in (config.seed)", 5),
        ("config.lr >= 'a'", 1),
        ("config.lr BETWEEN 'a' AND 'b'", 1),
        ("'a' > config.lr", 0),
        ("config.lr != 0.1", 3),
        ("config.lr || '' = '0.1'", 2),
        ("'x' || config.seed = 'x1'", 2),
        ("cast(config.seed as text) = '1'", 2),
        ("config.seed like '1%'", 2),
        ("config.seed in (1, -1) and name != 'x'", 3),
        ("length(name) > 1", 5),
        ("state = 'closed' and state != '1'", 5),
    ):
        assert len(Runs(exp).where(expression)) == count, expression
    for expression in ("config.lr < '0.1'", "'0.1' > config.lr", "config.lr between '0.1' and 'b'"):
        with pytest.raises(QueryError, match=r"has numbers and texts, and '0\.1' is a text; write"):
            Runs(exp).where(expression)
    for expression, order in (
        ("config.lr", [0.01, 0.01, 0.1, 0.1, "auto"]),
        ("config.lr desc", ["auto", 0.1, 0.1, 0.01, 0.01]),
        ("config.lr * 10 desc", [0.1, 0.1, 0.01, 0.01, "auto"]),
    ):
        assert [lr for (lr,) in cells(Runs(exp).sort(expression), "config.lr")] == order


def test_what_has_no_value_comes_last(tmp_path: Path) -> None:
    for name, value in (("a", None), ("b", 1.0), ("c", 2.0)):
        with Recorder(tmp_path / f"{name}.h5") as rec:
            rec.add({"x": 0.0} if value is None else {"loss": value})
    for order in ("loss.last", "loss.last asc"):
        assert cells(Runs(tmp_path).sort(order), "name") == [("b",), ("c",), ("a",)]
    assert cells(Runs(tmp_path).sort("loss.last desc, name"), "name")[0] == ("c",)


def test_folders_patterns_and_files(
    exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = exp / "lr0.1" / "seed0.h5"
    assert len(Runs(exp / "lr0.1", exp)) == 4  # each once
    assert [str(path) for path in Runs(one)] == [str(one)]
    assert cells(Runs(str(exp / "*" / "seed1.h5")), "name") == [("lr0.01/seed1",), ("lr0.1/seed1",)]
    assert len(Runs(str(exp / "**" / "*.h5"))) == 4
    monkeypatch.chdir(exp.parent)
    assert str(Runs("exp").paths[0]) == "exp/lr0.01/seed0.h5"
    with pytest.raises(RecordingError, match="nowhere does not exist; give a folder"):
        Runs("nowhere")
    with pytest.raises(RecordingError, match="no file or folder fits"):
        Runs("nowhere/*.h5")
    with pytest.raises(TypeError, match="needs a folder"):
        Runs()
    for name, target, why in (
        ("nowhere.h5", "none.h5", "it is a link to nowhere"),
        ("itself.h5", "itself.h5", "Too many levels of symbolic links"),
    ):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(RecordingError, match=f"{name} cannot be read: {why}"):
            Runs(tmp_path / name)
    with pytest.raises(RecordingError, match="no file or folder fits"):
        Runs(str(tmp_path / "*.h5"))


def test_links_to_nowhere_in_a_folder_or_a_pattern_are_left_out(exp: Path) -> None:
    (exp / "lr0.1" / "gone.h5").symlink_to("nowhere.h5")
    for place in (exp / "lr0.1", str(exp / "lr0.1" / "*.h5"), str(exp / "**" / "*0.1" / "*")):
        assert cells(Runs(place), "name") == [("seed0",), ("seed1",)]


def test_config_values_do_not_differ_because_a_run_is_damaged(exp: Path) -> None:
    columns = Runs(exp).table().columns
    cut = exp / "cut.h5"
    cut.write_bytes((exp / "lr0.1" / "seed0.h5").read_bytes()[:-100])
    assert cells(Runs(cut), "state") == [("damaged",)]
    assert Runs(exp).table().columns == (*columns, "error")
    with Recorder(exp / "other.h5", config={"lr": 0.1}) as rec:
        rec.add(train_loss=1.0)
    assert {"config.same", "config.opt.name"} <= set(Runs(exp).table().columns)  # it has none


def test_states_are_said_and_never_fatal(tmp_path: Path) -> None:
    config = {"lr": 0.5}
    for name in ("closed", "damaged", "old", "cut"):
        with Recorder(tmp_path / f"{name}.h5", config=config) as rec:
            rec.add(loss=1.0)
            rec.add(loss=3.0)
    damaged = bytearray((tmp_path / "damaged.h5").read_bytes())
    damaged[40] ^= 1  # of the superblock
    (tmp_path / "damaged.h5").write_bytes(damaged)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "cut.h5").read_bytes()[:-100])
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        del file["summary"]  # as from an older flexrec
    killed = Recorder(tmp_path / "killed.h5", config=config)
    killed.add(loss=2.0)
    killed.flush()
    crash(killed)
    (tmp_path / "text.h5").write_text("no recording")
    (tmp_path / ".hidden.h5").write_text("no recording")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1]
    with Recorder(tmp_path / "open.h5", config=config) as rec:
        rec.add(loss=4.0)
        rec.flush()
        runs = Runs(tmp_path)
        found = {
            name: rest for name, *rest in cells(runs, "name", "state", "config.lr", "loss.max")
        }
    assert found == {
        "closed": ["closed", 0.5, 3.0],
        "cut": ["damaged", None, None],
        "damaged": ["damaged", None, None],
        "killed": ["killed", 0.5, 2.0],
        "old": ["closed", 0.5, 3.0],
        "open": ["recording", 0.5, 4.0],
    }
    assert runs.notes() == ["2 files are no recordings"]
    assert cells(runs.where("state = 'damaged'"), "error") == [
        ("it was closed, but its end is missing now",),
        ("its first bytes are not as written",),
    ]
    assert cells(Runs(tmp_path).where("name = 'open'"), "state") == [("closed",)]


def test_a_run_that_grows_and_one_that_dies(tmp_path: Path) -> None:
    rec = Recorder(tmp_path / "run.h5")
    rec.add(loss=4.0)
    rec.flush()
    assert cells(Runs(tmp_path), "state", "loss.last") == [("recording", 4.0)]
    crash(rec)
    assert cells(Runs(tmp_path), "state", "loss.last") == [("killed", 4.0)]  # not a byte changed
    with Recorder(tmp_path / "run.h5", mode="resume") as rec:
        rec.add(loss=5.0)
    assert cells(Runs(tmp_path), "state", "loss.last", "resumes") == [("closed", 5.0, 1)]


def test_what_is_not_finite(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.h5", config={"x": float("inf"), "flag": True}) as rec:
        for value in (1.0, math.inf, math.nan):
            rec.add(loss=value)
    runs = Runs(tmp_path)
    names = ("loss.count", "loss.not_finite", "loss.last", "loss.max", "config.flag")
    assert cells(runs, *names) == [(3, 2, None, 1.0, 1)]
    assert len(runs.where("loss.last is null and loss.not_finite > 0")) == 1
    text = json.dumps(runs.records(), allow_nan=False)
    assert json.loads(text)[0]["metrics"]["loss"]["last"] is None


def test_records_are_plain_data(exp: Path) -> None:
    found = Runs(exp).where("config.seed = 0").records()
    assert [one["name"] for one in found] == ["lr0.01/seed0", "lr0.1/seed0"]
    one = found[0]
    assert one["path"] == str(exp / "lr0.01" / "seed0.h5")
    assert one["state"] == "closed"
    assert one["config"] == {"lr": 0.01, "seed": 0, "opt": {"name": "adam"}, "same": 1}
    assert one["metrics"]["m1/loss"]["last"] == 2.0
    assert Runs(exp).limit(1).records(["config.lr"])[0]["metrics"] == {"config.lr": 0.01}


def test_config_values_that_are_none_are_columns(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.h5", config={"lr": 1, "decay": None, "opt": {"clip": None}}):
        pass
    runs = Runs(tmp_path)
    assert len(runs.where("config.decay is null and config.opt.clip is null")) == 1
    assert list(runs.group("config.decay").groups) == ["decay=none"]
    assert "config.decay" not in runs.table().columns  # it does not differ
    with Recorder(tmp_path / "b.h5", config={"lr": 1, "decay": 0.1}):
        pass
    assert cells(Runs(tmp_path), "config.decay") == [(None,), (0.1,)]


def test_arguments_of_other_types(exp: Path) -> None:
    runs: Any = Runs(exp)
    for wrong in (-1, "3", None, 1.5):
        with pytest.raises(ValueError, match="limit is a number of runs, 0 or more, not "):
            runs.limit(wrong)
    with pytest.raises(ValueError, match="top is a number of runs, 1 or more, not -1"):
        runs.play(best="test_acc.max", top=-1)
    for ask in (runs.where, runs.sort):
        with pytest.raises(TypeError, match=r"an expression is a text, such as '.*; 3 is not"):
            ask(3)
    with pytest.raises(TypeError, match="the name of a column is a text"):
        runs.group(["config.lr"])
    for ask in (runs.table, runs.to_arrow, runs.records):
        with pytest.raises(TypeError, match=r"columns are a list of names, such as \['name'\]"):
            ask("name")
    with pytest.raises(TypeError, match="keys are a list of names"):
        runs.export(exp / "dataset", keys="*loss")


def test_tags_are_columns(exp: Path) -> None:
    tag(exp / "lr0.1" / "seed0.h5", "good", "the best\nso far")
    runs = Runs(exp)
    assert cells(runs.where("tag.good is not null"), "name", "tags", "note") == [
        ("lr0.1/seed0", "good", "the best\nso far")
    ]
    assert runs.table().columns[-2:] == ("tags", "note")
    assert "the best\\nso far" in str(runs)
    tag(exp / "lr0.1" / "seed0.h5", "good", "no more")
    assert cells(Runs(exp).where("tag.good = 'no more'"), "tags") == [("good",)]


def test_tags_that_are_a_link_to_nowhere(exp: Path) -> None:
    beside = exp / "lr0.1" / "seed0.h5.tags"
    beside.symlink_to("nowhere")
    assert len(Runs(exp)) == 4
    assert len(Runs(exp / "lr0.1" / "seed0.h5")) == 1
    beside.unlink()
    beside.symlink_to(beside.name)
    assert len(Runs(exp)) == 4


def test_keys_and_config_values_that_are_named_alike(tmp_path: Path) -> None:
    config = {"epoch": {"last": 3, "count": 4}, "step.last": 5}
    with Recorder(tmp_path / "run.h5", config=config) as rec:
        rec.add({"config_loss": 1.0, "config/loss": 2.0, "configs.a": 3.0, "config.b": 4.0})
    runs = Runs(tmp_path)
    (record,) = runs.records()
    assert set(record["metrics"]) == {"config_loss", "config/loss", "configs.a", "config.b"}
    assert record["config"] == config
    assert "config_loss.min" in runs.table().columns


def test_a_data_frame(exp: Path) -> None:
    pytest.importorskip("pandas")
    frame = Runs(exp).to_pandas()
    assert len(frame) == 4
    assert frame.groupby("config.lr")["test_acc.max"].max().to_dict() == {0.01: 12.0, 0.1: 14.0}


def test_keys_and_configs_that_are_hostile(tmp_path: Path) -> None:
    odd = [
        '"; DROP TABLE run; --',
        "a'b",
        "c1",
        "loss.last",
        "\x1b[2J",
        "x" * 500,
        "名前",
        "select",
    ]
    config = {key: f"'{key}'" for key in odd} | {"big": 1 << 80, "list": [1, {"a": None}]}
    config |= {"deep": json.loads('{"a":' * 30 + "1" + "}" * 30), "long": "y" * 10_000}
    for name in ("a", "b"):
        with Recorder(tmp_path / f"{name}.h5", config=config) as rec:
            rec.add(dict.fromkeys(odd, 1.0))
            rec.add(value=2.0)
    runs = Runs(tmp_path)
    assert len(runs) == 2
    quoted = odd[0].replace('"', '""')
    assert len(runs.where(f'"{quoted}".last = 1 and "config.{quoted}" is not null')) == 2
    assert len(runs.where('"loss.last.last" = 1 and c1.last = 1 and 名前.count = 1')) == 2
    assert cells(runs, "config.big", "config.list") == [(float(1 << 80), '[1, {"a": null}]')] * 2
    assert "\x1b" not in str(runs.table(runs.columns))
    assert runs.records()[0]["config"] == config
    assert len(Runs(tmp_path)) == 2


@pytest.mark.filterwarnings("ignore:.*distinct keys")
def test_more_keys_than_a_table_holds(tmp_path: Path) -> None:
    for name, count in (("a", 1200), ("b", 9)):
        with Recorder(tmp_path / f"{name}.h5", config={"lr": 0.1}) as rec:
            rec.add({f"layer/{name}{i}/mean": float(i) for i in range(count)})
            rec.add(loss=1.0)
    runs = Runs(tmp_path)
    assert cells(runs.where("loss.last = 1"), "config.lr") == [(0.1,)] * 2
    assert 9 * 900 < len(runs.columns) < 9 * 1300
    assert "1 run with many keys" in runs.notes()[0]
    assert len(runs.where("layer/b3/mean.last = 3")) == 1
    assert "layer/a1190/mean.last" not in runs.columns
    found = runs.where("layer/a1190/mean.last = 1190")  # it is read as it is asked for
    assert cells(found.sort("layer/a1191/mean.max"), "name") == [("a",)]
    assert "layer/a1190/mean.last" in Runs(tmp_path).columns
    with Recorder(tmp_path / "c.h5") as rec:
        rec.add({f"layer/a{i}/mean": 7.0 for i in range(1200)})
    assert cells(Runs(tmp_path).where("layer/a1190/mean.last = 7"), "name") == [("c",)]
    with pytest.raises(QueryError, match=r"no run has a column 'layer/zzz/mean\.last'"):
        runs.where("layer/zzz/mean.last = 3")


@pytest.mark.filterwarnings("ignore:.*distinct keys")
@pytest.mark.parametrize("is_kept", [True, False])
def test_several_such_keys_may_be_named(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    if not is_kept:
        cache.parent.write_text("a file, where the folder is to be")
    with Recorder(tmp_path / "a.h5") as rec:
        rec.add({f"layer/{i}/mean": float(i) for i in range(1800)})
    reads: list[int] = []
    runs = Runs(tmp_path, tell=lambda _, count: reads.append(count))
    rows = runs.table(["layer/1790/mean.last", "layer/1791/mean.min"]).rows
    assert rows == [(1790.0, 1791.0)]
    assert len(reads) == 2  # both at once
    found = runs.where("layer/1792/mean.last + layer/1793/mean.last = 3585")
    assert cells(found.sort("layer/1794/mean.max, layer/1795/mean.max"), "name") == [("a",)]
    with pytest.raises(QueryError, match=r"no run has a column 'layer/zzz/mean\.last'"):
        runs.where("layer/zzz/mean.last = layer/1796/mean.last")


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_table_with_all_the_columns_that_it_may_have(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    monkeypatch.setattr("flexrec.replay.runs.index._WIDE", 40)
    monkeypatch.setattr("flexrec.replay.runs.index._TABLES", 2)
    if not is_kept:
        cache.parent.write_text("a file, where the folder is to be")
    for name in "abc":
        with Recorder(tmp_path / f"{name}.h5", config={f"of_{name}": 1}, facts=False) as rec:
            rec.add({f"{name}{i}": float(i) for i in range(4)})
    runs = Runs(tmp_path)
    assert len(runs.columns) == 82
    assert "2 runs with many keys: 6 keys are in no column" in runs.notes()[0]
    assert cells(runs.where("c2.last = 2 and c3.last = 3"), "name") == [("c",)]
    assert cells(runs.where("config.of_c = 1"), "name", "config.of_c") == [("c", 1)]
    assert cells(runs.where("a3.last = 3"), "name") == [("a",)]
    with pytest.raises(QueryError, match=r"no run has a column 'config\.of_d'"):
        runs.where("config.of_d = 1")
