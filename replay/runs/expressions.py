"""Expressions about runs, such as `config.lr < 0.1 and test_acc.max > 90`, as SQL.

An expression is read token by token. What is no text, number, operator, listed word or function, or
known column is an error; a column's name is replaced by that of the index, such as c7. So neither
names from recordings nor statements can be part of the SQL text.
"""

import re
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from flexrec.recorder.errors import QueryError, nearest

# A text; a "quoted name", perhaps with a statistic behind it; a number; a name; anything else.
_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')"""
    r"""|(?P<quoted>"(?:[^"]|"")*"(?:\.\w+)?)"""
    r"""|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"""
    r"""|(?P<name>[^\W\d][\w./\[\]%:@-]*)"""
    r"""|(?P<space>\s+)"""
    r"""|(?P<operator>\|\||<<|>>|<=|>=|==|!=|<>|[-+*/%<>=(),&|~])"""
    r"""|(?P<other>.)""",
    re.DOTALL,
)
_PART = re.compile(r"[/\-%]|[^/\-%]+")
WORDS = {
    *("and", "or", "not", "is", "null", "in", "between", "like", "glob", "escape", "isnull"),
    *("notnull", "case", "when", "then", "else", "end", "cast", "as", "real", "integer", "text"),
    *("true", "false", "collate", "nocase"),
}
FUNCTIONS = {
    *("abs", "round", "lower", "upper", "length", "coalesce", "ifnull", "nullif", "iif", "min"),
    *("max", "instr", "substr", "trim", "replace", "like", "glob", "typeof", "sqrt", "pow", "exp"),
    *("ln", "log", "log10", "log2", "floor", "ceil", "sign"),
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR}
_SIDES = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "==": "==", "!=": "!=", "<>": "<>"}
_LITERALS = ("text", "number")
_ORDERED = {"<", "<=", ">", ">=", "between", "not between"}
_ARITHMETIC = {"+", "-", "*", "/", "%", "&", "|", "<<", ">>", "~"}
_OF_NUMBERS = {
    *("abs", "round", "min", "max", "sqrt", "pow", "exp", "ln", "log", "log10", "log2", "floor"),
    *("ceil", "sign"),
}
_PASSING = {"coalesce", "ifnull", "nullif", "iif"}  # functions whose value is that of an argument
DIRECTIONS = ("asc", "desc")
"""The last word of what is sorted by."""

TEXTS, NUMBERS = "texts", "numbers"
"""What a column may have; some have both."""

_SUCH_AS = "columns are such as config.lr and loss.min"
_INSIDE = {"count", "group_concat"}  # used by the table's own queries alone
_PIECES = 50  # of a name that is several
_SECONDS, _BYTES, _STEPS = 10.0, 1 << 20, 10_000


class UnknownColumnError(QueryError):
    """Columns are named that no run has.

    Attributes:
        columns: their names.
    """

    columns: tuple[str, ...] = ()


class Token(NamedTuple):
    """A piece of an expression: its kind, a group of _TOKEN, and its text."""

    kind: str
    text: str


def condition(text: str, columns: Mapping[str, str]) -> str:
    """The SQL of an expression.

    >>> condition("config.lr < 0.1 and state = 'closed'", {"config.lr": "c0", "state": "c1"})
    "c0 < 0.1 and c1 = 'closed'"

    Args:
        columns: the SQL name of each column.

    Raises:
        QueryError: it names no column, or is no expression.
    """
    tokens = list(_tokens(text.encode("utf-8", "replace").decode()))
    if not any(token.kind != "space" for token in tokens):
        raise QueryError("an expression is empty; give one such as config.lr < 0.1")
    depth = 0
    for token in tokens:
        depth += (token.text == "(") - (token.text == ")")
        if depth < 0:
            break
    if depth:
        raise QueryError(f"{text!r} is no expression: its brackets do not fit together")
    return _sql(tokens, text, columns)


def ordering(text: str, columns: Mapping[str, str]) -> str:
    """The SQL of a list of expressions to sort by; runs without a value come last.

    >>> ordering("loss.min desc, name", {"loss.min": "c0", "name": "name"})
    '(c0) IS NULL, (c0) DESC, (name) IS NULL, (name) ASC'

    Raises:
        QueryError: as for `condition`.
    """
    terms = []
    for tokens in _split(_tokens(text)):
        direction = "ASC"
        if tokens and tokens[-1].text.lower() in DIRECTIONS:
            direction = tokens.pop().text.upper()
        inner = "".join(token.text for token in tokens)
        term = condition(inner, columns)
        terms.append(f"({term}) IS NULL, ({term}) {direction}")
    return ", ".join(terms)


class Comparison(NamedTuple):
    """A column that is compared with a text or a number, by its SQL name.

    Attributes:
        column, operator, literal: the column, how it is compared, and with what.
        place: the index of the column among the tokens of the expression.
    """

    column: str
    operator: str
    literal: str
    place: int

    @property
    def kind(self) -> str:
        """What it is compared with: TEXTS or NUMBERS."""
        return TEXTS if self.literal.startswith("'") else NUMBERS

    @property
    def is_misquoted(self) -> bool:
        """Whether it asks if numbers are greater than a number in quotes."""
        return self.is_ordered and self.kind == TEXTS and is_number(self.literal[1:-1])

    @property
    def is_ordered(self) -> bool:
        """Whether it asks which is greater."""
        return self.operator in _ORDERED

    @property
    def is_simple(self) -> bool:
        """Whether it is one of `<`, `=` and the like, with one value behind it."""
        return self.operator in _SIDES


def comparisons(sql: str, columns: Collection[str]) -> Iterator[Comparison]:
    """The comparisons of single columns with texts or numbers in the SQL of an expression.

    >>> list(comparisons("c0 < '0.1' and c1 in ( 2 , - 3 )", {"c0", "c1"}))[0]
    Comparison(column='c0', operator='<', literal="'0.1'", place=0)

    Args:
        columns: the SQL names of the columns.
    """
    tokens = [token for token in _tokens(sql) if token.kind != "space"]
    words = [token.text.lower() for token in tokens]
    for i, word in enumerate(words):
        if word in columns and "||" not in words[max(0, i - 1) : i + 2]:
            rest = words[i + 1 : i + 2] == ["not"]
            operator = " ".join(words[i + 1 : i + 2 + rest])
            for literal in _compared_with(tokens[i + 1 + rest :]):
                yield Comparison(word, operator, literal, i)
            if i > 1 and words[i - 1] in _SIDES and tokens[i - 2].kind in _LITERALS:
                yield Comparison(word, _SIDES[words[i - 1]], tokens[i - 2].text, i)


def of_one_kind(sql: str, mixed: Collection[str]) -> str:
    """The SQL, with the numbers or texts alone of columns that have both, where only these fit.

    SQLite takes every text for greater than every number, and for 0 in arithmetic. Here a run with
    a text has no value where a column is compared with a number, or calculated with.

    >>> of_one_kind("c0 < 0.1 and c1 < 0.1", {"c0"})
    "(CASE WHEN typeof(c0) != 'text' THEN c0 END) < 0.1 and c1 < 0.1"

    Args:
        mixed: the SQL names of the columns.
    """
    words = [token.text for token in _tokens(sql) if token.kind != "space"]
    lower = [word.lower() for word in words]
    compared = [each for each in comparisons(sql, mixed) if each.is_ordered]
    with_texts = {each.place for each in compared if each.kind == TEXTS}
    for i, word in enumerate(words):
        if word in mixed and i in with_texts:
            words[i] = f"(CASE WHEN typeof({word}) = 'text' THEN {word} END)"
        elif word in mixed and _is_calculated(lower, i):
            words[i] = f"(CASE WHEN typeof({word}) != 'text' THEN {word} END)"
    return " ".join(words)


def _is_calculated(words: Sequence[str], i: int) -> bool:
    """Whether the word there should be a number: also as what a function, or CASE, returns."""
    first = last = i
    while True:
        before, behind = words[:first], words[last + 1 :]
        if beside := _beside(before, behind):
            return not any(word.startswith("'") for word in beside)
        opening, closing = _bracket(words, first, -1), _bracket(words, last, 1)
        function = words[opening - 1] if opening > 0 else ""
        if before[-1:] in (["then"], ["else"]) and words[opening] == "case":
            first, last = opening, closing
        elif before[-1:] not in (["("], [","]) or behind[:1] not in ([","], [")"]):
            return False
        elif function in _PASSING:
            first, last = opening - 1, closing
        elif before[-1:] == ["("] and behind[:1] == [")"] and function not in {*FUNCTIONS, "in"}:
            first, last = opening, closing
        else:
            return function in _OF_NUMBERS


def _beside(before: Sequence[str], behind: Sequence[str]) -> list[str]:
    """What an operator between these words compares or calculates with; empty if there is none."""
    found, rest = list[str](), behind[:1] == ["not"]
    if before[-1:] == ["and"] and "between" in before[-4:-2]:  # a sign may stand there
        found += before[-2:-1]
    elif {*before[-1:]} & (_ORDERED | _ARITHMETIC):
        found += before[-2:-1] or before[-1:]
    if " ".join(behind[: 1 + rest]) in _ORDERED | _ARITHMETIC:
        found += behind[1 + rest : 2 + rest]
    return found


def _bracket(words: Sequence[str], i: int, step: int) -> int:
    """The place of the bracket, or CASE or END, before a word (step -1) or behind it (1)."""
    depth, i = 1, i + step
    while 0 <= i < len(words):
        depth += {"(": step, "case": step, ")": -step, "end": -step}.get(words[i], 0)
        if not depth:
            return i
        i += step
    return -1


def _compared_with(tokens: Sequence[Token]) -> list[str]:
    """The texts and numbers behind a column that it is compared with."""
    words = [token.text.lower() for token in tokens[:2]]
    if words[:1] == ["in"]:
        ends = (i for i, token in enumerate(tokens) if token.text == ")")
        some = list(tokens[2 : next(ends, 0)])
    elif words[:1] == ["between"]:
        ands = [i for i, token in enumerate(tokens) if token.text.lower() == "and"]
        some = [*tokens[1:2], *(tokens[i + 1] for i in ands[:1] if i + 1 < len(tokens))]
    elif words[:1] == ["is"]:
        some = list(tokens[1 + (words[1:] == ["not"]) :][:1])
    else:
        some = list(tokens[1:2]) if words and words[0] in _SIDES else []
    return [token.text for token in some if token.kind in _LITERALS]


def is_number(text: str) -> bool:
    """Whether the text is that of a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def quoted(name: str) -> str:
    """The name of a column as an expression.

    >>> quoted('my "key".last')
    '"my ""key"".last"'
    """
    return '"{}"'.format(name.replace('"', '""'))


def _split(tokens: Iterator[Token]) -> list[list[Token]]:
    """Split at the commas that are in no brackets, and leave out the spaces at the ends."""
    terms, depth = [list[Token]()], 0
    for token in tokens:
        depth += (token.text == "(") - (token.text == ")")
        if token.text == "," and not depth:
            terms.append([])
        elif token.kind != "space" or terms[-1]:
            terms[-1].append(token)
    for term in terms:
        while term and term[-1].kind == "space":
            term.pop()
    return terms


def _tokens(text: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(text):
        yield Token(str(match.lastgroup), match.group())


def _sql(tokens: Sequence[Token], text: str, columns: Mapping[str, str]) -> str:
    """The tokens as SQL, with spaces between: two operators never make a comment."""
    out, missing = list[str](), list[str]()
    tokens = _bare([token for token in tokens if token.kind != "space"], columns)
    for i, token in enumerate(tokens):
        if token.kind == "other" or "\0" in token.text:
            raise QueryError(f"{text!r} is no expression: {token.text!r} cannot be in one")
        is_call = tokens[i + 1 : i + 2] and tokens[i + 1].text == "("
        try:
            out.append(_token(token, bool(is_call), columns))
        except KeyError as error:
            missing.append(error.args[0])
    if missing:
        raise unknown(missing, columns, f"{_SUCH_AS}, and a text needs single quotes: 'adam'")
    return " ".join(out)


def _bare(tokens: Sequence[Token], columns: Collection[str]) -> list[Token]:
    """The tokens without brackets around a single column, text or number."""
    out = list[Token]()
    for token in tokens:
        out.append(token)
        while [each.text for each in out[-3::2]] == ["(", ")"]:
            before = out[-4].text.lower() if len(out) > 3 and out[-4].kind == "name" else "and"
            is_list = before not in WORDS - FUNCTIONS - {"in"}
            is_single = out[-2].kind in ("quoted", *_LITERALS) or out[-2].text in columns
            if is_list or not is_single:
                break
            out[-3:] = [out[-2]]
    return out


def _token(token: Token, is_call: bool, columns: Mapping[str, str]) -> str:
    """A token as SQL; KeyError with the name if it is no column."""
    if token.kind == "quoted":
        quoted, _, rest = token.text[1:].rpartition('"')
        return columns[quoted.replace('""', '"') + rest]
    return _name(token.text, is_call, columns) if token.kind == "name" else token.text


def _name(name: str, is_call: bool, columns: Mapping[str, str]) -> str:
    """The SQL of a bare name: a word, a function, a column, or columns with operators between.

    Raises:
        KeyError: it is none of these.
        QueryError: there is no such function.
    """
    if is_call and name.lower() not in WORDS - FUNCTIONS:
        if name.lower() in FUNCTIONS:
            return name
        near = nearest(name, FUNCTIONS)
        raise QueryError(f"there is no function {name!r}{near}; there are {_listed(FUNCTIONS)}")
    if name.lower() in WORDS:  # also if a recording has a column of this name
        return name
    if name in columns:
        return columns[name]
    parts = _parts(name, columns)
    return " ".join(parts) if parts else columns[name]


def _parts(name: str, columns: Mapping[str, str]) -> list[str]:
    """The columns and numbers of `loss.last/other-loss.last`, with the operators between them."""
    pieces, out, i = _PART.findall(name)[:_PIECES], list[str](), 0
    while i < len(pieces):
        ends = (k for k in range(len(pieces), i, -1) if "".join(pieces[i:k]) in columns)
        end = next(ends, i)  # of the longest column that begins here
        if pieces[i] in "/-%" or (end <= i + 1 and re.fullmatch(r"\d+(\.\d*)?", pieces[i])):
            out.append(pieces[i])
            end = i + 1
        elif end > i and "".join(pieces[i:end]).lower() not in WORDS:
            out.append(columns["".join(pieces[i:end])])
        else:
            return []
        i = max(end, i + 1)
    return out


def unknown(
    names: Sequence[str], columns: Collection[str], hint: str = _SUCH_AS
) -> UnknownColumnError:
    """The error for names that are no columns; the message names the first."""
    name = names[0]
    near = nearest(name, columns)
    if not near:  # config.learning for config.lr: those that begin alike
        alike = [one for one in columns if one.partition(".")[0] == name.partition(".")[0]]
        near = f"; there are {_listed(alike)}" if alike else ""
    error = UnknownColumnError(f"no run has a column {name!r}{near or f'; {hint}'}")
    error.columns = tuple(names)
    return error


def _listed(names: Collection[str]) -> str:
    some = sorted(names)
    return ", ".join(some[:12]) + (", …" if len(some) > 12 else "")


def is_damaged(error: sqlite3.DatabaseError) -> bool:
    """Whether the error says that a database is not as it was written."""
    code = getattr(error, "sqlite_errorcode", None)  # None: SQLite read it, its content is wrong
    return code is None or code & 0xFF in _DAMAGED


@contextmanager
def guarded(db: sqlite3.Connection, tables: Collection[str]) -> Iterator[None]:
    """Let the connection only read these tables, by few functions, and for ten seconds."""

    def allowed(action: int, first: str | None, second: str | None, *_: object) -> int:
        is_allowed = (
            action == sqlite3.SQLITE_SELECT
            or (action == sqlite3.SQLITE_READ and (first in tables or not first))
            or (action == sqlite3.SQLITE_FUNCTION and str(second).lower() in FUNCTIONS | _INSIDE)
        )
        return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY

    end = time.monotonic() + _SECONDS
    before = db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _BYTES)
    db.set_authorizer(allowed)
    db.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_damaged(error):
            raise
        said = "it takes more than 10 seconds" if time.monotonic() > end else str(error)
        if "syntax error" in said or "row value" in said:
            said = "a word or an operator is missing in it, or too much"
        raise QueryError(f"the expression cannot be evaluated: {said}") from error
    finally:
        db.set_progress_handler(None, 0)
        db.set_authorizer(None)
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, before)
