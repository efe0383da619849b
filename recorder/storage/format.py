"""The recording format: names, dtypes, versions and the schema. `docs/format.md` specifies it.

All names in the HDF5 file are defined here. This module reads and writes no files.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import numpy as np

from flexrec.recorder.events import Part

if TYPE_CHECKING:
    from flexrec.recorder.events import Reduction


MAGIC = "flexrec"
VERSION = 2
LIVE, CLOSED = "live", "closed"
LIBVER = ("v110", "v110")  # SWMR needs superblock 3; "latest" cannot be read by HDF5 1.12

# Root attributes. The last three are those of a live file: the address and the id of its journal,
# and the CRC-32 of its config's dataset plus 2**32 times that of its facts'.
ATTR_FORMAT, ATTR_VERSION, ATTR_STATE, ATTR_CREATED = "format", "version", "state", "created"
ATTR_JOURNAL, ATTR_JOURNAL_ID = "journal", "journal_id"
ATTR_TEXT_CHECKSUMS = "text_checksums"

# Datasets of both layouts: UTF-8 bytes.
CONFIG, FACTS, SCHEMA = "config", "facts", "schema"
# The first dataset of the closed layout (storage/summary).
SUMMARY = "summary"
# Datasets of the live layout. EVENTS is written last: its rows make the rest count.
BLOBS, VALUES, EVENTS, JOURNAL = "blobs", "values", "events", "journal"
# Datasets and groups of the closed layout (EVENTS there holds the codes alone).
MARKS, SERIES, SUPERSEDED_SERIES, STEP, TIME, BARE, DATA, SHAPE = (
    "marks",
    "series",
    "superseded",
    "step",
    "time",
    "value",
    "data",
    "shape",
)
# For each group of columns the group of their tables; the root attribute of its name counts them.
TABLES = {SERIES: "tables", SUPERSEDED_SERIES: "superseded_tables"}
KEYS = "keys"


def root_attributes(state: str, created: float) -> dict[str, Any]:
    """The root attributes by name; strings of fixed length, which HDF5 protects by checksums."""
    return {
        ATTR_FORMAT: np.bytes_(MAGIC),
        ATTR_VERSION: VERSION,
        ATTR_STATE: np.bytes_(state),
        ATTR_CREATED: created,
    }


# An event's code: the signature of an add (0, 1, …), or one of these marks.
LOG, RESET, RESUME, DROPPED = -1, -2, -3, -4
SUPERSEDED = -5  # never in a file: readers use it for superseded events
MARK_SLOTS = 3  # every mark has three values: x, reset, keys

EVENT = np.dtype([("code", "<i8"), ("start", "<i8"), ("step", "<i8"), ("time", "<f8")])
# The dtype and the chunk size, in elements, of each dataset of the live layout, in the order of
# writing. Chunks are large because HDF5's time to look one up grows with their number, by 0.2 µs
# each. The unwritten part of a chunk is a hole, which takes no space on most file systems.
LIVE_LAYOUT: dict[str, tuple[np.dtype[Any], int]] = {
    SCHEMA: (np.dtype("u1"), 1 << 14),
    BLOBS: (np.dtype("u1"), 1 << 23),
    VALUES: (np.dtype("<f8"), 1 << 17),
    EVENTS: (EVENT, 1 << 15),
}
MARK = np.dtype(
    [
        ("code", "<i8"),
        ("x", "<f8"),
        ("reset", "<i8"),
        ("keys", "<i8"),
        ("step", "<i8"),
        ("time", "<f8"),
    ]
)
ALL_KEYS = -1

NUMBER, TEXT = "number", "text"
_DTYPES = {
    np.dtype(code).name: np.dtype(code).newbyteorder("<")
    for code in ("?", "b", "B", "h", "H", "i", "I", "q", "Q", "e", "f", "d", "F", "D")
}


class Form(NamedTuple):
    """The type of one part of a value: a number, a string, or an array of a dtype and a rank.

    In the live value stream a number takes one slot, a string two (offset and length in the
    blobs), and an array one plus one per axis (offset, shape).
    """

    kind: str
    ndim: int = 0

    @property
    def slots(self) -> int:
        """The number of float64 slots that the part takes in the value stream."""
        return 1 if self.kind == NUMBER else 1 + self.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the elements; bytes for a string."""
        return np.dtype("u1") if self.kind == TEXT else _DTYPES[self.kind]

    def __str__(self) -> str:
        return self.kind if self.kind in (NUMBER, TEXT) else f"{self.kind}:{self.ndim}"

    @classmethod
    def parse(cls, text: str) -> "Form":
        """The inverse of `str`."""
        if text == NUMBER:
            return cls(NUMBER)
        if text == TEXT:
            return cls(TEXT, 1)
        kind, _, ndim = text.partition(":")
        if kind not in _DTYPES or not ndim.isascii() or not ndim.isdigit() or int(ndim) > 64:
            raise ValueError(f"the schema holds an unknown form, {text!r:.40}")
        return cls(kind, int(ndim))


class Column(NamedTuple):
    """A key and the forms of its values' parts; a key whose forms change has several columns.

    With a reduction, the parts are a meter's state. `same` has an entry for each part: (column,
    part) of an earlier column in the same add if the part is shared with it and takes no slots
    of its own, else None. If no part is shared, `same` is empty.
    """

    key: str
    forms: tuple[Form, ...]
    bare: bool
    reduction: "Reduction | None" = None
    same: tuple[tuple[int, int] | None, ...] = ()

    @property
    def slots(self) -> int:
        """The number of float64 slots that one value takes in the value stream."""
        return 1 if self.is_number else self.slots_before(len(self.forms))

    def slots_before(self, part: int) -> int:
        """The number of slots before those of a part."""
        return sum(form.slots for i, form in enumerate(self.forms[:part]) if not self.shares(i))

    def shares(self, part: int) -> bool:
        """Whether a part is shared with an earlier column."""
        return bool(self.same) and self.same[part] is not None

    @property
    def has_arrays(self) -> bool:
        """Whether a part of its values is an array or a string, stored in the blobs."""
        return any(form.kind != NUMBER for form in self.forms)

    @property
    def is_number(self) -> bool:
        """Whether its values are single numbers."""
        return self.bare and self.forms[0].kind == NUMBER


class Keyset(NamedTuple):
    """The keys that a mark is for (None: all), and the name of its x (None: unnamed)."""

    keys: tuple[str, ...] | None = None
    axis: str | None = None


EVERY_KEY = Keyset()
"""The key set of most marks; it has no line in the schema, and the number ALL_KEYS."""


class Slots(NamedTuple):
    """The slots of an add: their number, and which are offsets of arrays or strings in blobs."""

    total: int
    pointers: tuple[int, ...]


def form_of(part: Part) -> Form:
    """The form of a normalised part."""
    if isinstance(part, float):
        return Form(NUMBER)
    if isinstance(part, str):
        return Form(TEXT, 1)
    return Form(part.dtype.name, part.ndim)


@dataclass
class Schema:
    """Columns, signatures (the columns of an add, in order) and the key sets of marks.

    It is stored as JSON lines and only grows, so that lines can be appended to a live file.

    Attributes:
        texts: the JSON texts of the config and facts that changed since the file was created.
    """

    columns: list[Column] = field(default_factory=list)
    signatures: list[tuple[int, ...]] = field(default_factory=list)
    keysets: list[Keyset] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def places(self) -> tuple[list[list[tuple[int, int]]], list[int]]:
        """The places of the columns in the value stream.

        Returns:
            For each column its signatures, each with the slot where the column begins; and for
            each signature the number of slots that an add takes.
        """
        places: list[list[tuple[int, int]]] = [[] for _ in self.columns]
        slots, sizes = [column.slots for column in self.columns], []
        for s, signature in enumerate(self.signatures):
            size = 0
            for c in signature:
                places[c].append((s, size))
                size += slots[c]
            sizes.append(size)
        return places, sizes

    def slots_of(self, signature: Iterable[int]) -> Slots:
        """The slots of an add of a signature."""
        total, pointers = 0, list[int]()
        for column in (self.columns[number] for number in signature):
            for part, form in enumerate(column.forms):
                if column.shares(part):
                    continue
                if form.kind != NUMBER:
                    pointers.append(total)
                total += form.slots
        return Slots(total, tuple(pointers))

    def owner(self, column: int, part: int) -> tuple[int, int]:
        """The column and part that hold a part's values: itself, unless it is shared."""
        same = self.columns[column].same
        return (same and same[part]) or (column, part)

    def keys(self) -> list[str]:
        """Every key once, in the order of its first appearance."""
        return list(dict.fromkeys(column.key for column in self.columns))

    def keys_of(self, code: int) -> list[str]:
        """The keys of the adds with this code."""
        return [self.columns[column].key for column in self.signatures[code]]

    @staticmethod
    def column_line(column: Column) -> bytes:
        """The JSON line of a column."""
        forms = [str(form) for form in column.forms]
        line = {"key": column.key, "forms": forms, "bare": column.bare}
        if column.reduction is not None:
            line["reduced"] = [column.reduction.meter, column.reduction.args()]
        if column.same:
            line["same"] = column.same
        return _line(line)

    @staticmethod
    def signature_line(columns: Sequence[int]) -> bytes:
        """The JSON line of a signature."""
        return _line({"columns": list(columns)})

    @staticmethod
    def keyset_line(keyset: Keyset) -> bytes:
        """The JSON line of the key set of a mark."""
        keys = None if keyset.keys is None else list(keyset.keys)
        return _line({"keys": keys} | ({"axis": keyset.axis} if keyset.axis else {}))

    @staticmethod
    def text_line(name: str, text: str) -> bytes:
        """The JSON line of a changed config, or of changed facts, given as JSON text."""
        return f'{{"{name}":{text}}}\n'.encode()

    def encode(self) -> bytes:
        """The lines for a closed file: without config and facts, which it stores elsewhere."""
        lines = [self.column_line(column) for column in self.columns]
        lines += [self.signature_line(signature) for signature in self.signatures]
        lines += [self.keyset_line(keyset) for keyset in self.keysets]
        return b"".join(lines)

    @classmethod
    def decode(cls, data: bytes) -> "Schema":
        """Parse and check the lines; an unfinished last line is left out.

        Raises:
            ValueError: a line is invalid.
        """
        schema, known = cls(), set[Column]()
        for line in data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]:
            try:
                schema._read(json.loads(line.decode("utf-8", "surrogatepass")), known)
            except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
                raise ValueError(f"the schema is damaged: {error!s:.80}") from error
        return schema

    def _read(self, entry: dict[str, Any], known: set[Column]) -> None:
        if "key" in entry:
            key, forms, bare = entry["key"], entry["forms"], entry["bare"]
            check_key(key)
            if not forms or (bare and len(forms) != 1):
                raise ValueError(f"column {key!r:.40} has {len(forms)} forms")
            parsed = tuple(map(_form, forms))
            same = self._same(entry["same"], parsed) if "same" in entry else ()
            column = Column(key, parsed, bool(bare), _reduction(entry), same)
            if column in known:
                raise ValueError(f"column {key!r:.40} is there twice")
            known.add(column)
            self.columns.append(column)
        elif "columns" in entry:
            columns = tuple(entry["columns"])
            if not columns or len(set(columns)) != len(columns):
                raise ValueError("a signature is empty or repeats a column")
            if not all(type(c) is int and 0 <= c < len(self.columns) for c in columns):
                raise ValueError("a signature names a column that is not there")
            for place, c in enumerate(columns):
                if any(same and same[0] not in columns[:place] for same in self.columns[c].same):
                    raise ValueError("a signature lacks a column that another of it shares")
            self.signatures.append(columns)
        elif CONFIG in entry or FACTS in entry:
            self.texts |= {name: json_text(it) for name, it in entry.items()}
        else:
            keys = None if entry["keys"] is None else tuple(entry["keys"])
            axis = entry.get("axis")
            for text in (*(keys or ()), "" if axis is None else axis):
                check_key(text)
            self.keysets.append(Keyset(keys, axis))

    def _same(self, entry: Any, forms: tuple[Form, ...]) -> tuple[tuple[int, int] | None, ...]:
        """The `same` of a column, from its line."""
        same = tuple(None if one is None else (int(one[0]), int(one[1])) for one in entry)
        for form, one in zip(forms, same, strict=True):
            if one is None:
                continue
            column, part = one
            if not (0 <= column < len(self.columns) and part >= 0):
                raise ValueError("a column shares what is not there")
            owner = self.columns[column]
            if owner.forms[part] != form or form.kind == NUMBER or owner.shares(part):
                raise ValueError("a column shares what is another's, or of another form")
        return same


_form = lru_cache(256)(Form.parse)


def _reduction(entry: dict[str, Any]) -> "Reduction | None":
    """The reduction in a column's line, if any."""
    if "reduced" not in entry:
        return None
    from flexrec.recorder.reduction.reductions import REDUCTIONS  # few recordings need it

    meter, args = entry["reduced"]
    if entry["bare"]:
        raise ValueError(f"a state of {meter!r:.40} is a bare value")
    return REDUCTIONS[meter].of(dict(args))


def check_key(key: object) -> None:
    """Raise TypeError or ValueError if `key` cannot be a key."""
    if not isinstance(key, str):
        raise TypeError(f"keys must be strings, got {type(key).__name__}")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the key {key!r} is not valid Unicode text") from None


def json_text(
    value: Any,
    *,
    default: Callable[[Any], Any] | None = None,
    separators: tuple[str, str] | None = None,
) -> str:
    """JSON that UTF-8 can encode: lone surrogates, as in a path that is not UTF-8, are escaped.

    Args:
        default, separators: as for `json.dumps`.
    """
    text = json.dumps(value, ensure_ascii=False, default=default, separators=separators)
    return text.encode("utf-8", "backslashreplace").decode()


def parsed(name: str, text: bytes) -> Any:
    """Parse the config or the facts.

    Raises:
        ValueError: it is not JSON, or the facts are no object.
    """
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if name == FACTS and not isinstance(found, dict | None):
        raise ValueError("it is no object")
    return found


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _line(entry: dict[str, Any]) -> bytes:
    return _JSON.encode(entry).encode("utf-8", "backslashreplace") + b"\n"


# Paths of the closed layout. A key's parts, step and time are members of its group. A component of
# a key that would collide with them, or that HDF5 cannot store unchanged, is percent-encoded.
_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) not in "/%")
_RESERVED = re.compile(rf"{STEP}|{TIME}|{BARE}(_\d+)?|\.{{0,2}}", re.ASCII)


def series_path(column: Column, forms_before: int, root: str = SERIES) -> str:
    """The group of a column; `forms_before` counts the key's earlier forms."""
    path = "/".join(_escape(component) for component in column.key.split("/"))
    return f"{root}/{path}" + (f"/%form{forms_before}" if forms_before else "")


@lru_cache(4096)  # keys have many components in common
def _escape(component: str) -> str:
    if _RESERVED.fullmatch(component):
        return "%" + "".join(f"{byte:02X}%" for byte in component.encode()).rstrip("%")
    # Keep readable Unicode as it is: only controls, '/' and '%' are encoded.
    return "".join(c if c in _SAFE or ord(c) > 0x7F else quote(c, safe="") for c in component)


def table_path(number: int, root: str = SERIES) -> str:
    """The group of a table."""
    return f"{TABLES[root]}/{number}"


def part_name(column: Column, part: int) -> str:
    """The name of a part in its column's group: `value`, or `value_0`, `value_1`, …"""
    return BARE if column.bare else f"{BARE}_{part}"


def first_forms(columns: Iterable[Column]) -> list[int]:
    """For every column, the number of earlier columns with the same key."""
    seen: dict[str, int] = {}
    counts = []
    for column in columns:
        counts.append(seen.get(column.key, 0))
        seen[column.key] = counts[-1] + 1
    return counts
