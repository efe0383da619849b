"""Text in columns."""

from hypothesis import given
from hypothesis import strategies as st
from tabulate import tabulate

from flexrec.replay.runs.text_table import text_table

CELLS = st.text("ab-0.9_/", max_size=9)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=5), st.sets(st.integers(0, 2)))
def test_it_is_as_tabulate_has_it(rows: list[tuple[str, str, str]], right: set[int]) -> None:
    headers = ("key", "a longer name", "last")
    align = ["right" if i in right else "left" for i in range(3)]
    wanted = tabulate(rows, headers, disable_numparse=True, colalign=align)
    assert text_table(headers, rows, right=right) == wanted


def test_wide_characters_take_two_columns_and_accents_none() -> None:
    assert text_table(
        ["a", "b"], [["損失", "1"], ["e\u0301", "2"], ["loss", "3"]]
    ).splitlines() == [
        "a     b",
        "----  ---",
        "損失  1",
        "e\u0301     2",
        "loss  3",
    ]
