"""Expressions: what becomes SQL, and that nothing else ever does."""

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrec.recorder import QueryError
from flexrec.replay.runs.expressions import FUNCTIONS, WORDS, condition, guarded, ordering

COLUMNS = {
    "config.lr": "c0",
    "loss.min": "c1",
    "m1/loss.last": "c2",
    'a"b.max': "c3",
    "min.last": "c4",
}


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute("CREATE TABLE val0(id, c0, c1, c2, c3, c4)")
    db.execute("INSERT INTO val0 VALUES(1, 0.1, 2, 3, 'x', 5)")
    db.execute("CREATE TABLE secret(word)")
    yield db
    db.close()


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("config.lr<1e-3", "c0 < 1e-3"),
        ("config.lr < .5 AND loss.min is not null", "c0 < .5 AND c1 is not null"),
        ("m1/loss.last = 'it''s; --'", "c2 = 'it''s; --'"),
        ('"m1/loss".last = "a""b".max', "c2 = c3"),
        ('"m1/loss.last" > 1', "c2 > 1"),
        ("loss.min/config.lr-loss.min", "c1 / c0 - c1"),
        ("loss.min--config.lr", "c1 - - c0"),
        ("loss.min- -1", "c1 - - 1"),
        ("round(loss.min, 2) in (1, 2)", "round ( c1 , 2 ) in ( 1 , 2 )"),
        ("min(loss.min, min.last) < 1", "min ( c1 , c4 ) < 1"),
        ("loss.min / * config.lr", "c1 / * c0"),
    ],
)
def test_names_are_replaced(text: str, sql: str) -> None:
    assert condition(text, COLUMNS) == sql


@pytest.mark.parametrize("word", sorted(WORDS | FUNCTIONS))
def test_words_stay_words_whatever_columns_there_are(word: str) -> None:
    forged = {**COLUMNS, **dict.fromkeys((word, word.upper(), "2", "-", "/"), "c9")}
    texts = [f"loss.min is not {word}", f"loss.min is not {word.upper()}"] if word in WORDS else []
    for text in (*texts, f"{word}(loss.min)" if word in FUNCTIONS else "1", "loss.min/2-1"):
        assert condition(text, forged) == condition(text, COLUMNS)
    assert condition(f'"{word}" = 1', forged) == "c9 = 1"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("confg.lr < 1", "no run has a column 'confg.lr'; did you mean 'config.lr'?"),
        ("config.batch_size < 1", "no run has a column 'config.batch_size'; there are config.lr"),
        ("select 1", "no run has a column 'select'; columns are such as"),
        ("config.lr = adam", "'adam'; columns are such as .* a text needs single quotes: 'adam'"),
        ('config.lr = "adam"', "'adam'; columns are such as .* a text needs single quotes"),
        ("(select word from secret)", "no run has a column 'select'"),
        ("1; drop table val0", "';' cannot be in one"),
        ("[c0]", "'\\[' cannot be in one"),
        ("`c0`", "'`' cannot be in one"),
        ("?1 = 1", "'\\?' cannot be in one"),
        ("'open", '"\'" cannot be in one'),
        ("'nul\0'", "cannot be in one"),
        ("c0 = 1", "no run has a column 'c0'"),
        ("load_extension('x')", "there is no function 'load_extension'"),
        ("rond(loss.min)", "there is no function 'rond'; did you mean 'round'"),
        ("  ", "is empty"),
        ("1) or (1", "brackets do not fit"),
        ("(1", "brackets do not fit"),
    ],
)
def test_what_is_no_expression(text: str, error: str) -> None:
    with pytest.raises(QueryError, match=error):
        condition(text, COLUMNS)


def test_an_order_has_directions_and_puts_null_last() -> None:
    assert ordering("loss.min desc, round(config.lr, 1)", COLUMNS) == (
        "(c1) IS NULL, (c1) DESC, (round ( c0 , 1 )) IS NULL, (round ( c0 , 1 )) ASC"
    )
    with pytest.raises(QueryError, match="is empty"):
        ordering("loss.min,", COLUMNS)


ATTACKS = (
    "SELECT word FROM secret",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM pragma_table_list",
    "SELECT zeroblob(2000000000)",
    "SELECT count(*) FROM val0 a, secret",
    "ATTACH 'x.db' AS x",
    "DELETE FROM val0",
    "DROP TABLE val0",
    "PRAGMA writable_schema=ON",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
)


@pytest.mark.parametrize("sql", ATTACKS)
def test_the_guard_refuses_what_no_expression_can_say(sql: str, db: sqlite3.Connection) -> None:
    """Even if a statement came through, the connection would not run it."""
    with pytest.raises(QueryError, match="cannot be evaluated"), guarded(db, {"val0"}):
        db.execute(sql).fetchall()
    assert db.execute("SELECT count(*) FROM val0").fetchone() == (1,)  # and is free afterwards


def test_the_guard_ends_what_takes_too_long(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flexrec.replay.runs.expressions._SECONDS", 0.05)
    many = ", ".join(f"val0 t{i}" for i in range(12))
    db.executemany("INSERT INTO val0 VALUES(?, 1, 1, 1, 1, 1)", ((i,) for i in range(100)))
    sql = f"SELECT 1 FROM {many} WHERE t0.id + t11.id < 0"  # noqa: S608
    with pytest.raises(QueryError, match="more than"), guarded(db, {"val0"}):
        db.execute(sql).fetchall()


@given(st.text(alphabet="c0'\"-/*;()., \n\0sel[`?:@$#~|&=<>%!x\u2028\ud800", max_size=30))
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    """What is taken reads the one table: it is one statement, whatever the text."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute("CREATE TABLE val0(id, c0, c1, c2, c3, c4)")
    try:
        sql = condition(text, COLUMNS)
        with guarded(db, {"val0"}):
            db.execute(f"SELECT id FROM val0 WHERE ({sql})").fetchall()  # noqa: S608
    except QueryError:
        pass
    finally:
        db.close()
