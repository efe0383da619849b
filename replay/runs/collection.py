"""Runs, the class for many recordings: chosen, sorted, shown as a table, and played."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from flexrec.recorder.errors import MissingDependency, QueryError, counted, warn
from flexrec.recorder.files.remote import check_path, copied, is_url
from flexrec.replay.runs.expressions import DIRECTIONS, UnknownColumnError, is_damaged, quoted
from flexrec.replay.runs.index import Tell, discard, indexed
from flexrec.replay.runs.records import records
from flexrec.replay.runs.row import Cell
from flexrec.replay.runs.scan import homes, scan
from flexrec.replay.runs.selection import Selection
from flexrec.replay.runs.table import Table, best_of, default_columns, shown
from flexrec.replay.runs.workers.choose import Wanted, workers_of
from flexrec.replay.runs.workers.spread import spread

if TYPE_CHECKING:
    from pandas import DataFrame

    from flexrec.replay.definitions.definitions import Definitions
    from flexrec.replay.export.dataset import Exported
    from flexrec.replay.plots.window import Window
    from flexrec.replay.runs.comparing.playing import PlayedRuns, Settings


T = TypeVar("T")
_SHOWN = 100  # runs that a notebook or a prompt shows


class Runs:
    """The recordings in folders: a table of them, those that an expression chooses, their plots.

    >>> good = Runs(".").where("config.lr < 1 and train_loss.count > 9").sort("name").limit(1)
    >>> print(good.table(["name", "state", "config.lr", "train_loss.count"]))
    name    state      config.lr    train_loss.count
    ------  -------  -----------  ------------------
    run     closed           0.1                  10

    Columns are such as `config.lr`, `config.opt.name`, `test_acc.max`, `train_loss.last`, `state`,
    `started`, `seconds`, `host`; `columns` lists them. A key has the columns `count`,
    `not_finite`, `step`, `last`, `min`, `min_at`, `max`, `max_at` and `mean`. They say what each
    recording says of itself. A recording that is damaged is a row that says so. The runs are
    as they were when the object was made.

    Args:
        places: folders, which are searched recursively; patterns such as `exp/*/run.h5`; files; and
            URLs of these such as `s3://bucket/exp`, which are copied to a temporary folder until
            the process ends.
        tell: called with the number of recordings read so far and the number of those to read.
        workers: who reads recordings, here, in `play` and in `export`: a number of processes of
            this machine, or a `distributed.Client`, whose workers see the same files at the same
            paths. The results are the same. By default this process reads them.

    Raises:
        RecordingError: a place does not exist.
        WorkerError: the workers cannot be reached, do not fit, or died.
    """

    def __init__(
        self,
        *places: str | os.PathLike[str],
        tell: Tell = lambda _, __: None,
        workers: Wanted = None,
    ) -> None:
        self._places = [str(copied(p)) if is_url(p) else os.fspath(p) for p in places]
        if not self._places:
            raise TypeError("Runs needs a folder, a pattern or a recording, such as Runs('exp/')")
        self._tell, self._workers = tell, workers_of(workers)
        self._where: tuple[str, ...] = ()
        self._sort: str = ""
        self._limit: int | None = None
        self._groups: tuple[str, ...] = ()
        self._named: tuple[str, ...] = ()  # what the index has because it was named
        self._begin()

    def where(self, expression: str) -> Self:
        """The runs for which an SQL expression holds, such as `config.lr < 0.1`.

        Names with other characters than letters, digits and `_./` are quoted: `"my key".last`. A
        run that lacks a column is not chosen.

        Raises:
            QueryError: the expression is wrong, or names no column.
            TypeError: it is no text.
        """
        _check_text(expression, "an expression", "'config.lr < 0.1'")
        return self._with(_where=(*self._where, expression))

    def sort(self, expression: str) -> Self:
        """The runs in another order, such as `test_acc.max desc, name`.

        Raises:
            QueryError, TypeError: as for `where`.
        """
        _check_text(expression, "an expression", "'test_acc.max desc'")
        return self._with(_sort=expression)

    def limit(self, count: int) -> Self:
        """The first runs.

        Raises:
            ValueError: the count is no whole number from 0 up.
        """
        _check_count(count, "limit", 0)
        return self._with(_limit=count)

    def select(self, where: str | None, sort: str | None, limit: int | None) -> Self:
        """As `where`, `sort` and `limit` one after the other, but choosing once, which is quicker.

        Raises:
            QueryError: as for `where`.
        """
        return self._with(
            _where=self._where if where is None else (*self._where, where),
            _sort=self._sort if sort is None else sort,
            _limit=self._limit if limit is None else limit,
        )

    def group(self, *columns: str) -> Self:
        """The same runs, of which `play` draws the mean over those that are equal in the columns.

        Raises:
            QueryError: there is no such column.
            TypeError: a name is no text.
        """
        for name in columns:
            _check_text(name, "the name of a column", "group('config.lr', 'config.seed')")
        self._ask(lambda selection: selection.check(columns))
        return self._with(_groups=columns)

    @property
    def paths(self) -> list[Path]:
        """The recordings."""
        return self._ask(lambda selection: [Path(one.path) for one in selection.found])

    @property
    def names(self) -> list[str]:
        """The runs' names in legends, without a last part that all share, such as `/run`."""
        names = self._unique_names()
        split = [name.rpartition("/") for name in names]
        if len({last for _, _, last in split}) == 1 and all(first for first, _, _ in split):
            return [first for first, _, _ in split]
        return names

    def _unique_names(self) -> list[str]:
        names = self._ask(lambda selection: [one.name for one in selection.found])
        if len(set(names)) == len(names):
            return names
        from flexrec.replay.player.player import run_names  # they are from several places

        return run_names(self.paths)

    @property
    def groups(self) -> dict[str, list[Path]]:
        """The recordings of each group, by the group's name in legends; empty without `group`."""
        from flexrec.replay.runs.comparing.playing import by_value

        if not self._groups:
            return {}
        rows = sorted(
            zip(self.table(self._groups).rows, self.paths, strict=True),
            key=lambda row: (list(map(by_value, row[0])), row[1]),
        )
        names, found = self._labels([values for values, _ in rows]), dict[str, list[Path]]()
        for values, path in rows:
            found.setdefault(names[values], []).append(path)
        return found

    @property
    def columns(self) -> list[str]:
        """The names of all columns."""
        return self._ask(lambda selection: list(selection.columns))

    def __len__(self) -> int:
        return self._ask(len)

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)

    def table(self, columns: Sequence[str] | None = None) -> Table:
        """A table with a row for each run.

        Args:
            columns: the columns; by default the name, the state and the times, the config values
                that differ, and the last and best values of some keys.

        Raises:
            QueryError: there is no such column.
        """

        _check_list(columns)

        def made(selection: Selection) -> Table:
            names = default_columns(selection) if columns is None else list(columns)
            selection.check(names)
            return Table(tuple(names), selection.rows(names))

        return self._ask(made)

    def to_pandas(self, columns: Sequence[str] | None = None) -> "DataFrame":
        """All columns, or some, as a pandas DataFrame with a row for each run.

        Raises:
            MissingDependency: pandas is not installed.
            QueryError: there is no such column.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependency.of("to_pandas", "pandas") from error
        table = self.table(self.columns if columns is None else columns)
        return pd.DataFrame(table.rows, columns=list(table.columns))

    def to_arrow(self, columns: Sequence[str] | None = None) -> Any:
        """All columns, or some, as a pyarrow Table with a row for each run.

        If all are asked for, `config` is the whole config as JSON, and each run has a `name` of its
        own: if they are from several places, with enough folders.

        Raises:
            MissingDependency: pyarrow is not installed.
            QueryError: there is no such column.
        """
        from flexrec.replay.export.run_table import run_table

        own: dict[str, list[str]] = {}
        if columns is None:
            configs = self._ask(lambda selection: [json.dumps(c) for c in selection.configs()])
            own = {"name": self._unique_names(), "config": configs}
        return run_table(
            self.columns if columns is None else columns, lambda some: self.table(some).rows, own
        )

    def export(
        self,
        out: str | os.PathLike[str],
        *,
        keys: Sequence[str] = (),
        overwrite: bool = False,
        tell: Tell = lambda _, __: None,
    ) -> "Exported":
        """Write the numbers and texts of the runs as a folder of Parquet files.

            Runs("exp/").where("state = 'closed'").export("dataset/")

        `values/*.parquet` has a row for each value, sorted by run and key; its columns are run,
        key, step, time, value and text. `runs.parquet` has a row for each run, with every column,
        and the config as JSON. Runs that cannot be read are left out.

        Args:
            out: the folder.
            keys: names of keys and patterns such as `*loss`; by default all keys.
            overwrite: whether to replace a dataset that is there.
            tell: called with the number of runs that were exported so far, and the number of all.

        Returns:
            How many runs and rows there are (`runs`, `rows`), which runs are `unfinished`, why runs
            are left out (`left_out`), and which keys are (`other_keys`).

        Raises:
            ExistsError: there is a dataset.
            MissingDependency: pyarrow is not installed.
            OutputError: the folder holds something else, or cannot be written.
            RecordingError: no run can be read.
            UnknownKeyError: no run has such a key.
            WorkerError: the workers cannot be reached, do not fit, or died, or do not see a file.
        """
        from flexrec.replay.export.dataset import Source, write_dataset

        check_path(out)
        _check_list(keys, "keys")
        names = self._unique_names()
        sources = [Source(*each) for each in zip(names, self.paths, strict=True)]
        return write_dataset(
            sources,
            self.to_arrow(),
            Path(out),
            each=partial(spread, workers=self._workers, reads=str),
            keys=keys,
            overwrite=overwrite,
            tell=tell,
        )

    def play(
        self,
        definitions: "Definitions | None" = None,
        *,
        band: str = "std",
        best: str | None = None,
        top: int = 5,
        color: str | None = None,
        every: int | None = None,
        env: str | None = None,
        uid: str | None = None,
        strict: bool = False,
    ) -> "list[Window]":
        """Plot the runs: a line for each, or for each group its mean and a band around it.

        >>> windows = Runs(".").where("train_loss.count > 9").group("config.lr").play(band="sem")

        Runs that cannot be read, and values that cannot be drawn, are left out with a warning.

        Args:
            definitions, every, env, uid, strict: as in `flexrec.play`.
            band: of groups: `std`, `sem`, `minmax`, percentiles such as `q10-q90`, or `none`.
            best: draw the best runs by this column, such as `test_acc.max`, in colour, and the
                others in grey. The least is the best of `.min` and of losses, else the greatest;
                `loss.last desc` says otherwise.
            top: how many are the best.
            color: colour the runs along a ramp by this column.

        Raises:
            DefinitionError: there is no such band, or no run has a key that is to be drawn.
            QueryError: there is no such column, no run has a value of `best`, or best or color is
                given for groups.
            RecordingError: no run can be read.
            ValueError: top is less than 1.
            WorkerError: the workers cannot be reached, do not fit, or died.
        """
        from flexrec.replay.runs.comparing.playing import Settings

        settings = Settings(definitions, every, env, uid, strict, is_coloured=color is not None)
        played = self.play_all(settings, band=band, best=best, top=top, color=color)
        for left in played.left_out:
            warn(f"left out: {left}")
        for note in played.notes:
            warn(note)
        return played.windows

    def play_all(
        self,
        settings: "Settings",
        *,
        band: str = "std",
        best: str | None = None,
        top: int = 5,
        color: str | None = None,
        tell: Tell = lambda _, __: None,
    ) -> "PlayedRuns":
        """As `play`, but return what was left out instead of warning about it."""
        from flexrec.replay.runs.comparing.bands import check_band
        from flexrec.replay.runs.comparing.playing import Member, play_groups, play_runs

        check_band(band)
        if self._groups:
            if best or color:
                raise QueryError("best and color are for runs, not for groups of them")
            members = [Member(path, name) for name, paths in self.groups.items() for path in paths]
            return play_groups(members, settings, tell, band=band, workers=self._workers)
        _check_count(top, "top", 1)
        chosen = set(self._best(best, top).paths) if best else set(self.paths)
        values = self.table([color]).rows if color else [(None,)] * len(self)
        members = [
            Member(path, name, value, _said(color, value), is_muted=path not in chosen)
            for path, name, (value,) in zip(self.paths, self.names, values, strict=True)
        ]
        played = play_runs(members, settings, tell, workers=self._workers)
        if members and not chosen:
            raise QueryError(f"no run can be the best: none has a value of {best}")
        return played

    def _best(self, best: str, top: int) -> Self:
        column, _, direction = best.strip().rpartition(" ")
        if direction.lower() not in DIRECTIONS:
            column, direction = best.strip(), ""
        key, _, statistic = column.rstrip('"').rpartition(".")
        column = quoted(column) if column in self.columns else column
        is_low = statistic == "min" or (statistic != "max" and best_of(key) == "min")
        order = f"{column} {direction or ('asc' if is_low else 'desc')}"
        return self.where(f"{column} is not null").sort(order).limit(top)

    def _labels(self, groups: Iterable[tuple[Cell, ...]]) -> dict[tuple[Cell, ...], str]:
        """The name of each group, such as `lr=0.1 opt.name=adam`; in full if two would be equal."""
        names = [name.removeprefix("config.") for name in self._groups]

        def named(cells: tuple[Cell, ...], text: Callable[[Cell], str]) -> str:
            listed = zip(names, cells, strict=True)
            return " ".join(f"{n}={'none' if v is None else text(v)}" for n, v in listed)

        short = {cells: named(cells, lambda cell: shown(cell) or "''") for cells in groups}
        if len(set(short.values())) == len(short):
            return short
        return {cells: named(cells, repr) for cells in short}

    def records(self, columns: Sequence[str] = ()) -> list[dict[str, Any]]:
        """The runs as plain JSON data: name, path, state, started, seconds, config, tags, metrics.

        Args:
            columns: what `metrics` holds; by default the statistics of every key.
        """
        _check_list(columns)
        return self._ask(lambda selection: records(selection, columns))

    def notes(self) -> list[str]:
        """What is to be known of the table: files that are no recordings, keys that it lacks."""
        return self._ask(lambda selection: selection.notes())

    def __repr__(self) -> str:
        table, more = self._beginning()
        return f"{table}\n{more}" if more else str(table)

    def _repr_html_(self) -> str:
        table, more = self._beginning()
        return f"{table._repr_html_()}<p>{more}</p>" if more else table._repr_html_()

    def _beginning(self) -> tuple[Table, str]:
        """The table of the first runs, and how many more there are, which `table` has."""
        table = self.table()
        left = len(table.rows) - _SHOWN
        more = f"and {counted(left, 'more run')}; table() has all" if left > 0 else ""
        return Table(table.columns, table.rows[:_SHOWN]), more

    def _begin(self, *, is_last: bool = False, ask: Sequence[str] = ()) -> None:
        found = scan(self._places)
        try:
            where = homes(self._places)
            db = indexed(found, where, self._tell, ask=ask, workers=self._workers)
            self._all = Selection(db, found)
        except sqlite3.DatabaseError:
            if is_last:
                raise
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Make the index again, because it is damaged."""
        discard(homes(self._places))
        self._begin(is_last=True, ask=self._named)

    def _with(self, **changes: Any) -> Self:
        other = copy(self)
        for name, value in changes.items():
            setattr(other, name, value)
        other._ask(len)
        return other

    def _ask(self, work: Callable[[Selection], T]) -> T:
        """Do something with the runs that are chosen.

        Keys that are in no column, since their runs have many, are read when they are named. An
        index that is damaged is made anew.
        """
        try:
            return self._with_all_named(work)
        except sqlite3.DatabaseError as error:
            if not is_damaged(error):
                raise
            self._begin_anew()
            return self._with_all_named(work)

    def _with_all_named(self, work: Callable[[Selection], T]) -> T:
        while True:
            try:
                return work(self._all.picked(self._where, self._sort, self._limit))
            except UnknownColumnError as error:
                more = self._all.may_have(error.columns) - {*self._named}
                if not more:
                    raise
                self._named += tuple(sorted(more))
                self._begin(ask=self._named)


def _check_text(value: object, what: str, such_as: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} is a text, such as {such_as}; {value!r} is not")


def _check_list(names: Sequence[str] | None, what: str = "columns") -> None:
    if isinstance(names, str):
        raise TypeError(f"{what} are a list of names, such as [{names!r}], not a text")


def _check_count(count: object, what: str, least: int) -> None:
    if not isinstance(count, int) or count < least:
        raise ValueError(f"{what} is a number of runs, {least} or more, not {count!r}")


def _said(column: str | None, value: Cell) -> str:
    """What a legend says of a run that is coloured by a column: `lr 0.01`."""
    if column is None:
        return ""
    return f"{column.removeprefix('config.')} {'none' if value is None else shown(value)}"
