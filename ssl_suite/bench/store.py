"""The results store: one SQLite file, one row a result."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ssl_suite.core.errors import UserError
from ssl_suite.core.hashing import config_hash

ROLES = ("simple", "random", "ssl", "supervised")
MODALITIES = ("text", "image", "speech")
SCHEMA_VERSION = 3
ADDED = {2: "chosen_on"}
"""Older schema that can still be read → the column it lacks, which is 0 in its rows."""
APPLICATION_ID = 0x53534C53  # "SSLS": tells our files from other SQLite databases
LOCK_TIMEOUT = 60.0  # seconds a writer waits for the others


@dataclass(frozen=True)
class Result:
    """One number: one encoder judged on one task with one seed; or, with an `error`, a run that gave none.

    Attributes:
        modality: "text", "image" or "speech".
        name: what the encoder is called in tables (SpanBERT); of a baseline: random, raw pixels.
        method: what trained the encoder (MaskedLM), or the baseline.
        role: "ssl", "random" (the same encoder, untrained), "simple" (no encoder) or "supervised" (from scratch).
        encoder: class and shape; only results of the same one are compared with its random weights.
        weights: hash of the encoder the run started from.
        task: digits, part of speech, characters.
        data: where the task's data comes from (samples:digits).
        data_hash: of the rows of all its splits.
        fold: of the data, where it is split in several ways.
        split: the split that was scored.
        metric: accuracy, cer.
        main: whether the metric is the task's own, which selects models; the others are shown beside it.
        direction: "max" if more is better, "min" if less is.
        value: the number; NaN where a run gave none.
        validation: the main metric on the validation split, of the weights that were tested; NaN if unknown.
        seed: of the run.
        labels: labelled examples used.
        protocol: how it was judged, name@version (probe@1).
        recipe: hash of the resolved options, without what the other columns say (encoder, data source, seed, outputs).
        checkpoint: hash of the trained weights that `test` was given; "" where the run itself trained them.
        seconds: wall-clock time of the run.
        run: folder of the run, relative to the store; with the outcomes of the main metric.
        command: the exact command line.
        created: ISO 8601 time.
        version: of ssl_suite.
        chosen_on: labelled validation examples by which the tested weights were chosen, beside `labels`; 0: by none.
        online: from a probe that watched pre-training; never mixed with offline results.
        error: why there is no number.
    """

    modality: str
    name: str
    method: str
    role: str
    encoder: str
    weights: str
    task: str
    data: str
    data_hash: str
    fold: int
    split: str
    metric: str
    main: bool
    direction: str
    value: float
    validation: float
    seed: int
    labels: int
    protocol: str
    recipe: str
    checkpoint: str
    seconds: float
    run: str
    command: str
    created: str
    version: str
    chosen_on: int = 0
    online: bool = False
    error: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UserError(f"A result's role is one of {', '.join(ROLES)}, not {self.role!r}.")
        if self.direction not in ("max", "min"):
            raise UserError(f"A result's direction is 'max' or 'min', not {self.direction!r}.")

    @property
    def identity(self) -> str:
        """Hash of everything that determines the numbers of this run on this split."""
        return config_hash({name: getattr(self, name) for name in KEY if name != "metric"})


COLUMNS = tuple(field.name for field in fields(Result))
# All that determines a number. Two encoders of one method and shape differ in their weights; the name is here because
# two names for the same weights are two rows of a table, and `online` so that no such figure replaces an offline one.
KEY = (
    "modality", "name", "method", "role", "encoder", "weights", "task", "data_hash", "fold", "split", "metric", "seed",
    "labels", "protocol", "recipe", "checkpoint", "online",
)  # fmt: skip
_SQL_TYPES = {"float": "REAL", "int": "INTEGER NOT NULL", "bool": "INTEGER NOT NULL", "str": "TEXT NOT NULL"}


class Store:
    """Results in a SQLite file; safe to write from several processes at once.

    Args:
        path: of the database; made, with its folder, if absent.

    Raises:
        UserError: the file is something else, cannot be opened, or another version of ssl_suite wrote it.
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

    def add(self, results: Iterable[Result], instead_of: str | None = None) -> None:
        """Write all results, or none; a result with the key of an older one replaces it (see `KEY`).

        Args:
            results: to write.
            instead_of: a run folder that was overwritten: all that it gave before goes.
        """
        updates = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in KEY)
        statement = (
            f"INSERT INTO results ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "
            f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {updates}"
        )
        rows = [_to_row(result) for result in results]
        with self._connect() as db, _transaction(db):
            if instead_of is not None:
                db.execute("DELETE FROM results WHERE run = ?", (instead_of,))
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
        if application == APPLICATION_ID and tables and version in ADDED:
            _migrate(db)
        elif application == APPLICATION_ID and tables and version < SCHEMA_VERSION:
            raise UserError(
                f"{self.path} was written by an older ssl_suite (schema {version}), whose rows do not say which "
                "weights and data they are of: move it away and run again."
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


def _migrate(db: sqlite3.Connection) -> None:
    """Adds what an older schema lacks; another process may have done so meanwhile."""
    with _transaction(db):
        while (version := db.execute("PRAGMA user_version").fetchone()[0]) in ADDED:
            db.execute(f"ALTER TABLE results ADD COLUMN {ADDED[version]} INTEGER NOT NULL DEFAULT 0")
            db.execute(f"PRAGMA user_version = {version + 1}")


def _to_row(result: Result) -> tuple[Any, ...]:
    casts = {"float": float, "int": int, "bool": int, "str": str}  # NumPy scalars would be stored as bytes
    return tuple(casts[str(field.type)](getattr(result, field.name)) for field in fields(Result))


def _from_row(row: Sequence[Any]) -> Result:
    values = dict(zip(COLUMNS, row, strict=True))
    for name in ("value", "validation", "seconds"):  # SQLite keeps NaN as NULL
        values[name] = math.nan if values[name] is None else float(values[name])
    return Result(**{**values, "online": bool(values["online"]), "main": bool(values["main"])})


def to_json(rows: Sequence[Result]) -> str:
    """The results as a JSON list of objects; NaN becomes null, since JSON has none."""
    records = [asdict(row) for row in rows]
    for record in records:
        for name, value in record.items():
            if isinstance(value, float) and not math.isfinite(value):
                record[name] = None
    return json.dumps(records, indent=2, ensure_ascii=False)
