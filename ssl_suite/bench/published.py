"""Figures of papers beside a benchmark's own: quoted, marked as such by brackets, and compared with nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from ssl_suite.bench.stats import with_interval
from ssl_suite.bench.table import owners
from ssl_suite.core.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from ssl_suite.bench.stats import Cell

FILE = "published.json"
WIDTH = 4
"""Columns of a table for a terminal of 80."""


@dataclass(frozen=True)
class Published:
    """A table of a paper.

    Attributes:
        source: the paper and its table.
        modality: of the tasks it stands beside.
        columns: what each figure is: task and metric as the benchmark has them (`CoLA matthews`), or the paper's name.
        rows: whose they are → percent in each column; None where the paper has none.

    Raises:
        UserError: a row has not one figure a column.
    """

    source: str
    modality: str
    columns: list[str]
    rows: Mapping[str, list[float | None]]

    def __post_init__(self) -> None:
        for name, figures in self.rows.items():
            if len(figures) != len(self.columns):
                said = f"{name!r} has {len(figures)} figures, but there are {len(self.columns)} columns"
                raise UserError(f"published, {self.source}: {said}.")

    def row(self, name: str) -> dict[str, float]:
        """Column → percent, of one row."""
        pairs = zip(self.columns, self.rows[name], strict=True)
        return {column: figure for column, figure in pairs if figure is not None}


@dataclass(frozen=True)
class Beside:
    """Published figures and a benchmark's own, as texts of one table.

    Attributes:
        columns: of all of them.
        rows: name → column → text; those of papers in brackets, behind the benchmark's own.
        sources: of the latter.
    """

    columns: list[str]
    rows: Mapping[str, Mapping[str, str]]
    sources: list[str]


def write_published(tables: Sequence[Published], out: Path) -> None:
    """Keeps them in a benchmark's folder, for its report."""
    from ssl_suite.core.files import write_text

    write_text(out / FILE, json.dumps([asdict(table) for table in tables]))


def read_published(folder: Path) -> list[Published]:
    """Those of a benchmark's folder; none where it has none.

    Raises:
        UserError: the file is not one that `write_published` wrote.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        return [Published(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no published figures ({error}); `ssl-suite bench` writes it anew.") from None


def own_figures(cells: Iterable[Cell], columns: Collection[str]) -> dict[str, dict[str, tuple[float, float]]]:
    """Encoder or baseline → column → its mean and half width on the test split, in percent.

    Of `TASK, FOLD` the mean over folds, whose half width is not known. Random weights say whose they are.
    """
    cells = list(cells)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for cell in cells:
        column = f"{cell.task.partition(',')[0]} {cell.metric}"
        column = column if column in columns else f"{cell.task} {cell.metric}"
        if column in columns and cell.split == "test" and cell.values and not cell.online:
            name = f"random weights of {owners(cell.encoder, cells)}" if cell.role == "random" else cell.name
            found.setdefault(name, {}).setdefault(column, []).append((100 * cell.mean, 100 * cell.half_width))
    return {
        name: {c: v[0] if len(v) == 1 else (mean(m for m, _ in v), math.nan) for c, v in figures.items()}
        for name, figures in found.items()
    }


def beside(tables: Sequence[Published], cells: Sequence[Cell]) -> Beside:
    """Joins them: by column where a paper's is a task of the benchmark, by row where it names an encoder of it."""
    columns = list(quoted := dict.fromkeys(column for table in tables for column in table.columns))
    names = {name for table in tables for name in table.rows}
    if names & {cell.name for cell in cells if cell.role == "ssl"}:
        main = [cell for cell in cells if cell.column.main and cell.split == "test"]
        columns = list(dict.fromkeys([*columns, *(f"{cell.task} {cell.metric}" for cell in main)]))
    own = {n: figures for n, figures in own_figures(cells, columns).items() if n in names or figures.keys() & quoted}
    rows = {name: {c: with_interval(*figure, ".1f") for c, figure in figures.items()} for name, figures in own.items()}
    for table in tables:
        for name in table.rows:
            row = rows.setdefault(name, {})
            row |= {c: (f"{row[c]} " if c in row else "") + f"({figure:.2f})" for c, figure in table.row(name).items()}
    return Beside(columns, rows, list(dict.fromkeys(table.source for table in tables)))


def published_tables(tables: Sequence[Published], cells: Sequence[Cell]) -> Iterator[Table]:
    """For a terminal of 80 columns."""
    from rich.table import Table

    for modality in dict.fromkeys(table.modality for table in tables):
        own = [cell for cell in cells if cell.modality == modality]
        joined = beside([table for table in tables if table.modality == modality], own)
        for first in range(0, len(joined.columns), WIDTH):
            part = joined.columns[first : first + WIDTH]
            title = "Beside published figures, percent; (quoted)"
            made = Table("", title=title, caption=f"quoted: {'; '.join(joined.sources)}", pad_edge=False)
            for column in part:
                made.add_column(column, justify="right", overflow="fold")
            for name, figures in joined.rows.items():
                if any(column in figures for column in part):
                    made.add_row(name, *(figures.get(column, "–") for column in part))
            yield made
