"""The results store: one SQLite file, one row a result."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_suite.core.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

ROLES = ("simple", "random", "ssl", "supervised")
MODALITIES = ("text", "image", "speech")
SCHEMA_VERSION = 1
APPLICATION_ID = 0x53534C53  # "SSLS": tells our files from other SQLite databases
LOCK_TIMEOUT = 60.0  # seconds a writer waits for the others


@dataclass(frozen=True)
class Result:
    """One number: one method judged on one task with one seed.

    Attributes:
        modality: "text", "image" or "speech".
        method: a method's name (SimCLR), or of a baseline (random, raw pixels).
        role: "ssl", "random" (the same encoder, untrained), "simple" (no encoder) or "supervised" (from scratch).
        encoder: which encoder; only results of the same encoder are compared with its random weights.
        task: digits, part of speech, characters.
        data: where the task's data comes from (samples:digits).
        split: the split that was scored.
        metric: accuracy, cer.
        direction: "max" if more is better, "min" if less is.
        value: the number; NaN where a run gave none.
        seed: of the run.
        labels: labelled examples used.
        protocol: how it was judged, name@version (probe@1).
        config_hash: of the resolved config.
        seconds: wall-clock time of the run.
        run: folder of the run, relative to the store.
        command: the exact command line.
        created: ISO 8601 time.
        version: of ssl_suite.
        online: from a probe that watched pre-training; never mixed with offline results.
    """

    modality: str
    method: str
    role: str
    encoder: str
    task: str
    data: str
    split: str
    metric: str
    direction: str
    value: float
    seed: int
    labels: int
    protocol: str
    config_hash: str
    seconds: float
    run: str
    command: str
    created: str
    version: str
    online: bool = False

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UserError(f"A result's role is one of {', '.join(ROLES)}, not {self.role!r}.")
        if self.direction not in ("max", "min"):
            raise UserError(f"A result's direction is 'max' or 'min', not {self.direction!r}.")


COLUMNS = tuple(field.name for field in fields(Result))
# `encoder` and `online` belong to the key: two encoders each need their own random-weights row,
# and an online figure must not take the place of an offline one.
KEY = (
    "modality", "method", "role", "encoder", "task", "data", "split", "metric", "seed", "protocol", "labels", "online",
)  # fmt: skip
_SQL_TYPES = {"float": "REAL", "int": "INTEGER NOT NULL", "bool": "INTEGER NOT NULL", "str": "TEXT NOT NULL"}


class Store:
    """Results in a SQLite file; safe to write from several processes at once.

    Args:
        path: of the database; made, with its folder, if absent.

    Raises:
        UserError: the file is something else, cannot be opened, or a newer ssl_suite wrote it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot make the folder of {self.path}: {error}.") from error
        with self._connect() as db:
            if not self._is_ready(db):
                _create(db)

    def add(self, results: Iterable[Result]) -> None:
        """Write all results, or none; a result with the key of an older one replaces it (see `KEY`)."""
        updates = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in KEY)
        statement = (
            f"INSERT INTO results ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "
            f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {updates}"
        )
        rows = [_to_row(result) for result in results]
        with self._connect() as db, _transaction(db):
            db.executemany(statement, rows)

    def rows(self, **filters: Any) -> list[Result]:
        """The results, in the order they were first added.

        Args:
            **filters: a column and the value, or list of values, it must have: `rows(task="digits", seed=[0, 1])`.

        Raises:
            UserError: no such column.
        """
        clauses: list[str] = []
        values: list[Any] = []
        for name, wanted in filters.items():
            if name not in COLUMNS:
                raise UserError(f"Results have no column {name!r}; choose from {', '.join(COLUMNS)}.")
            options = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
            clauses.append(f"{name} IN ({', '.join('?' * len(options))})")
            values += options
        where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
        with self._connect() as db:
            found = db.execute(f"SELECT {', '.join(COLUMNS)} FROM results{where} ORDER BY rowid", values).fetchall()
        return [_from_row(row) for row in found]

    def _is_ready(self, db: sqlite3.Connection) -> bool:
        """Whether the tables are there; False for a new, empty file."""
        with _transaction(db, "BEGIN"):  # one snapshot for the three reads: another process may be creating the tables
            application = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application == APPLICATION_ID and version > SCHEMA_VERSION:
            raise UserError(
                f"{self.path} was written by a newer ssl_suite (schema {version}, this one reads up to "
                f"{SCHEMA_VERSION}): upgrade ssl_suite or choose another file."
            )
        if application != APPLICATION_ID and (application or version or tables):
            raise UserError(f"{self.path} is a SQLite database, but not a results store: choose another file.")
        return bool(tables)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=LOCK_TIMEOUT, isolation_level=None)) as db:
                yield db
        except sqlite3.OperationalError as error:
            raise UserError(f"Cannot use the results store {self.path}: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self.path} is not a results store ({error}): choose another file.") from error


@contextmanager
def _transaction(db: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    db.execute(begin)
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _create(db: sqlite3.Connection) -> None:
    columns = ", ".join(f"{field.name} {_SQL_TYPES[str(field.type)]}" for field in fields(Result))
    with _transaction(db):
        db.execute(f"CREATE TABLE IF NOT EXISTS results ({columns}, UNIQUE ({', '.join(KEY)}))")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _to_row(result: Result) -> tuple[Any, ...]:
    casts = {"float": float, "int": int, "bool": int, "str": str}  # NumPy scalars would be stored as bytes
    return tuple(casts[str(field.type)](getattr(result, field.name)) for field in fields(Result))


def _from_row(row: Sequence[Any]) -> Result:
    values = dict(zip(COLUMNS, row, strict=True))
    for name in ("value", "seconds"):  # SQLite keeps NaN as NULL
        values[name] = math.nan if values[name] is None else float(values[name])
    return Result(**{**values, "online": bool(values["online"])})


def format_table(rows: Sequence[Result]) -> Table:
    """The results over seeds, for the terminal: mean ± interval, the best of each task in bold, ▲ beats random."""
    from rich.table import Table
    from rich.text import Text

    from ssl_suite.bench.stats import best, format_median, format_value, group_by, row_key, row_names, summarise, wins

    table = Table("task", title="Results over seeds; bold: the best of a task; ▲: beats random weights")
    table.add_column("method", no_wrap=True)
    table.add_column("mean ± 95 %", justify="right", no_wrap=True)
    table.add_column("median [min, max]", justify="right", no_wrap=True)
    for column, cells in group_by(summarise(rows), lambda cell: cell.column).items():
        winner = best(cells)
        metric = f"{column.metric} {cells[0].arrow}" + (f" ({column.split})" if column.split != "test" else "")
        protocols = ", ".join(dict.fromkeys(cell.protocol + " (online)" * cell.online for cell in cells))
        names = row_names(cells)
        heading = [column.task, metric, f"{column.labels} labels", protocols]
        for i, cell in enumerate(cells):
            told = heading[i:] if cell is cells[-1] else heading[i : i + 1]  # a line a row, what is left in the last
            name = names[row_key(cell)].replace(" · ", "\n")
            texts = ["\n".join(told), name, format_value(cell) + " ▲" * wins(cell, cells), format_median(cell)]
            table.add_row(*map(Text, texts), style="bold" if cell is winner else None)
        table.add_section()
    return table


def to_json(rows: Sequence[Result]) -> str:
    """The results as a JSON list of objects; NaN becomes null, since JSON has none."""
    records = [asdict(row) for row in rows]
    for record in records:
        for name, value in record.items():
            if isinstance(value, float) and not math.isfinite(value):
                record[name] = None
    return json.dumps(records, indent=2, ensure_ascii=False)
