"""The recording format: names, dtypes, versions and the schema. `docs/format.md` is its spec.

Only this file knows what things are called in the HDF5 file. It opens nothing and writes nothing.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import numpy as np

from flexrec.recorder.events import Part

if TYPE_CHECKING:
    from flexrec.recorder.events import Reduction


MAGIC = "flexrec"
VERSION = 1
LIVE, CLOSED = "live", "closed"
LIBVER = ("v110", "v110")  # SWMR needs superblock 3; "latest" cannot be read by HDF5 1.12

# Root attributes. The last two are those of a live file's journal: where it begins, and its id.
ATTR_FORMAT, ATTR_VERSION, ATTR_STATE, ATTR_CREATED = "format", "version", "state", "created"
ATTR_JOURNAL, ATTR_JOURNAL_ID = "journal", "journal_id"

# Datasets of both layouts: UTF-8 bytes.
CONFIG, FACTS, SCHEMA = "config", "facts", "schema"
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


def root_attributes(state: str, created: float) -> dict[str, Any]:
    """The attributes of the root, by name: texts of fixed length, which HDF5 has checksums for."""
    return {
        ATTR_FORMAT: np.bytes_(MAGIC),
        ATTR_VERSION: VERSION,
        ATTR_STATE: np.bytes_(state),
        ATTR_CREATED: created,
    }


# An event's code: the signature of an add (0, 1, …), or one of these marks.
LOG, RESET, RESUME, DROPPED = -1, -2, -3, -4
SUPERSEDED = -5  # never in a file: what a reader makes of an event that a resume took back
MARK_SLOTS = 3  # every mark has three values: x, reset, keys

EVENT = np.dtype([("code", "<i8"), ("start", "<i8"), ("step", "<i8"), ("time", "<f8")])
# The dtype and the chunk, in elements, of each dataset of the live layout, in the order in which
# they are written. HDF5 takes longer to say where a chunk lies the more there are, 0.2 µs for each,
# so chunks are large; what is not yet written of one is a hole, and takes no space on most disks.
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
    """What one part of a value is: a number, a text, or an array of a dtype and a rank.

    In the live value stream a number takes one slot, a text two (offset and length in the
    blobs), an array one and one more per axis (offset, shape).
    """

    kind: str
    ndim: int = 0

    @property
    def slots(self) -> int:
        """How many float64 of the value stream the part takes."""
        return 1 if self.kind == NUMBER else 1 + self.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of its elements: bytes for a text."""
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
    """A key together with the form of its values; a key whose form changes has several.

    With a reduction, the parts are what a meter remembers of a value. `same` says of each part
    whether it is one that an earlier column of the same add has, (column, part): then it takes no
    slots of its own. Where no part is, `same` is empty.
    """

    key: str
    forms: tuple[Form, ...]
    bare: bool
    reduction: "Reduction | None" = None
    same: tuple[tuple[int, int] | None, ...] = ()

    @property
    def slots(self) -> int:
        """How many float64 of the value stream one value takes."""
        return self.slots_before(len(self.forms))

    def slots_before(self, part: int) -> int:
        """How many of them come before those of a part."""
        return sum(form.slots for i, form in enumerate(self.forms[:part]) if not self.shares(i))

    def shares(self, part: int) -> bool:
        """Whether a part is another column's."""
        return bool(self.same) and self.same[part] is not None

    @property
    def has_arrays(self) -> bool:
        """Whether a part of its values lies in the blobs: an array or a text."""
        return any(form.kind != NUMBER for form in self.forms)

    @property
    def is_number(self) -> bool:
        """Whether its values are single numbers."""
        return self.bare and self.forms[0].kind == NUMBER


class Keyset(NamedTuple):
    """Which meters a mark is for (None: all), and what its x is called where it has a name."""

    keys: tuple[str, ...] | None = None
    axis: str | None = None


EVERY_KEY = Keyset()
"""The key set of most marks: it has no line, and the number ALL_KEYS."""


class Slots(NamedTuple):
    """What an add takes of the value stream: how many slots, and which of them are pointers,
    that say where in the blobs an array or a text begins."""

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

    It is stored as JSON lines and only ever grows, so it can be appended to a live file.

    Attributes:
        config: the JSON text of the config, where it has changed since the file was made.
    """

    columns: list[Column] = field(default_factory=list)
    signatures: list[tuple[int, ...]] = field(default_factory=list)
    keysets: list[Keyset] = field(default_factory=list)
    config: str | None = None

    def places(self) -> tuple[list[list[tuple[int, int]]], list[int]]:
        """Where the columns lie in the value stream.

        Returns:
            For each column its signatures, each with the slot where the column begins; and for
            each signature how many slots an add takes.
        """
        places: list[list[tuple[int, int]]] = [[] for _ in self.columns]
        sizes = []
        for s, signature in enumerate(self.signatures):
            size = 0
            for c in signature:
                places[c].append((s, size))
                size += self.columns[c].slots
            sizes.append(size)
        return places, sizes

    def slots_of(self, signature: Iterable[int]) -> Slots:
        """What an add of a signature takes."""
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
        """The column, and which part of it, whose slots have a part's values: mostly itself."""
        same = self.columns[column].same
        return (same and same[part]) or (column, part)

    def keys(self) -> list[str]:
        """Every key once, in the order of its first appearance."""
        return list(dict.fromkeys(column.key for column in self.columns))

    def keys_of(self, code: int) -> list[str]:
        """The keys of an add with a code."""
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
    def config_line(text: str) -> bytes:
        """The JSON line of a config that has changed, given as JSON text."""
        return f'{{"config":{text}}}\n'.encode()

    def encode(self) -> bytes:
        """What a closed file stores: all lines but those of configs, which it has elsewhere."""
        lines = [self.column_line(column) for column in self.columns]
        lines += [self.signature_line(signature) for signature in self.signatures]
        lines += [self.keyset_line(keyset) for keyset in self.keysets]
        return b"".join(lines)

    @classmethod
    def decode(cls, data: bytes) -> "Schema":
        """Read the lines, checking each; an unfinished last line is left out.

        Raises:
            ValueError: a line is not as it should be.
        """
        schema, known = cls(), set[Column]()
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            try:
                schema._read(json.loads(line), known)
            except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
                raise ValueError(f"the schema is damaged: {error!s:.80}") from error
        return schema

    def _read(self, entry: dict[str, Any], known: set[Column]) -> None:
        if "key" in entry:
            key, forms, bare = entry["key"], entry["forms"], entry["bare"]
            check_key(key)
            if not forms or (bare and len(forms) != 1):
                raise ValueError(f"column {key!r:.40} has {len(forms)} forms")
            parsed = tuple(map(Form.parse, forms))
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
        elif "config" in entry:
            self.config = json.dumps(entry["config"], ensure_ascii=False)
        else:
            keys = None if entry["keys"] is None else tuple(entry["keys"])
            axis = entry.get("axis")
            for text in (*(keys or ()), "" if axis is None else axis):
                check_key(text)
            self.keysets.append(Keyset(keys, axis))

    def _same(self, entry: Any, forms: tuple[Form, ...]) -> tuple[tuple[int, int] | None, ...]:
        """Whose the parts of a column are, by its line."""
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


def _reduction(entry: dict[str, Any]) -> "Reduction | None":
    """What a column's line says that its values were reduced by."""
    if "reduced" not in entry:
        return None
    from flexrec.recorder.reduction.reductions import REDUCTIONS  # which few recordings need

    meter, args = entry["reduced"]
    if entry["bare"]:
        raise ValueError(f"a state of {meter!r:.40} is a bare value")
    return REDUCTIONS[meter].of(dict(args))


def check_key(key: object) -> None:
    """Raise TypeError or ValueError for what cannot be a key."""
    if not isinstance(key, str):
        raise TypeError(f"keys must be strings, got {type(key).__name__}")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the key {key!r} is not valid Unicode text") from None


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


# Paths of the closed layout. A key's parts, step and time are its group's members; a component
# that would collide with them or that HDF5 would not store as it is is percent-encoded.
_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) not in "/%")
_RESERVED = re.compile(rf"{STEP}|{TIME}|{BARE}(_\d+)?|\.{{0,2}}", re.ASCII)


def series_path(column: Column, forms_before: int, root: str = SERIES) -> str:
    """The group of a column; `forms_before` counts the key's earlier forms."""
    path = "/".join(_escape(component) for component in column.key.split("/"))
    return f"{root}/{path}" + (f"/%form{forms_before}" if forms_before else "")


def _escape(component: str) -> str:
    if _RESERVED.fullmatch(component):
        return "%" + "".join(f"{byte:02X}%" for byte in component.encode()).rstrip("%")
    # Keep readable Unicode as it is: only controls, '/' and '%' are encoded.
    return "".join(c if c in _SAFE or ord(c) > 0x7F else quote(c, safe="") for c in component)


def part_name(column: Column, part: int) -> str:
    """What a part is called inside its column's group: `value`, or `value_0`, `value_1`, …"""
    return BARE if column.bare else f"{BARE}_{part}"


def first_forms(columns: Iterable[Column]) -> list[int]:
    """For every column, how many earlier columns have its key."""
    seen: dict[str, int] = {}
    counts = []
    for column in columns:
        counts.append(seen.get(column.key, 0))
        seen[column.key] = counts[-1] + 1
    return counts
