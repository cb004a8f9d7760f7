"""Tables of results: which cells make a row, what it is called, how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ssl_suite.bench.stats import Cell, best, group_by, random_of, verdicts

if TYPE_CHECKING:
    from rich.table import Table

MARKS = {1: "▲", -1: "▼", 0: ""}


@dataclass(frozen=True)
class RowKey:
    """What makes two cells the same row of a table; `variant` counts recipes that were tried on one task."""

    role: str
    name: str
    method: str
    encoder: str
    weights: str
    protocol: str
    variant: int = 0


def row_keys(cells: Sequence[Cell]) -> dict[Cell, RowKey]:
    """The table row of each cell."""
    keys: dict[Cell, RowKey] = {}
    for cell in cells:
        encoder = ("", "") if cell.role == "simple" else (cell.encoder, cell.weights)  # its shape is the task's
        key = RowKey(cell.role, cell.name, cell.method, *encoder, cell.protocol)
        taken = sum(other.column == cell.column and replace(k, variant=0) == key for other, k in keys.items())
        keys[cell] = replace(key, variant=taken)
    return keys


def row_names(cells: Sequence[Cell]) -> dict[RowKey, str]:
    """A row's name, with what tells it from others of that name; random weights say whose they are."""
    keys = row_keys(cells)
    rows = list(dict.fromkeys(keys.values()))
    names = {}
    for row in rows:
        same = [other for other in rows if (other.role, other.name) == (row.role, row.name)]
        parts = ["random weights" if row.role == "random" else row.name]
        if row.role == "random" and len({other.encoder for other in rows if other.role == "random"}) > 1:
            parts = [f"random weights of {owners(row.encoder, rows)}"]
        elif len({other.weights for other in same}) > 1:
            parts.append(row.weights[:6])
        parts += [row.protocol] * (len({other.protocol for other in same}) > 1)
        parts += [f"recipe {next(c.recipe for c, key in keys.items() if key == row)[:6]}"] * (row.variant > 0)
        names[row] = " · ".join(parts)
    return names


def owners(encoder: str, rows: Iterable[RowKey | Cell]) -> str:
    """Names of the pretrained encoders of a shape, or the shape's own where there is none."""
    return ", ".join(dict.fromkeys(r.name for r in rows if r.role == "ssl" and r.encoder == encoder)) or encoder


def decimals(values: Iterable[float]) -> int:
    """Decimals that suit numbers of this size: 3 for fractions, 1 for percentages, 0 from a thousand on."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 3 if largest < 10 else 1 if largest < 1000 else 0


def format_value(cell: Cell, places: int | None = None) -> str:
    """Mean ± half width, without the latter where it is unknown; "n/a" without any value."""
    if not cell.values:
        return "n/a"
    places = decimals([cell.mean]) if places is None else places
    interval = f" ± {cell.half_width:.{places}f}" if math.isfinite(cell.half_width) else ""
    return f"{cell.mean:.{places}f}{interval}" + (" †" if cell.missing else "")


def format_median(cell: Cell, places: int | None = None) -> str:
    """Median and, in brackets, the least and the greatest value; empty for fewer than two."""
    if len(cell.values) < 2:
        return ""
    places = decimals([cell.mean]) if places is None else places
    return f"{cell.median:.{places}f} [{min(cell.values):.{places}f}, {max(cell.values):.{places}f}]"


def caption(compared: int) -> str:
    """What the marks of a table stand for; there are none where nothing could be compared."""
    marks = (
        f"▲ ▼ better or worse than the same encoder with random weights, at 95 % over seeds and test rows, corrected "
        f"for {compared} comparison{'s' * (compared != 1)} (Holm); "
    )
    return f"{marks if compared else ''}bold: the highest mean"


def format_table(cells: Sequence[Cell], shown: Callable[[Cell], bool] = lambda cell: True) -> Table:
    """The results over seeds, for a terminal of 80 columns.

    Args:
        cells: all there are, for marks are corrected for all that is compared.
        shown: which of them the table has.
    """
    from rich.table import Table
    from rich.text import Text

    found = verdicts(cells, random_of)
    own = [cell for cell in cells if shown(cell)]
    compared = sum(verdict.known for cell, verdict in found.items() if cell.column.main and not cell.online)
    table = Table("task", title="Results over seeds", caption=caption(compared), padding=(0, 1), pad_edge=False)
    table.add_column("encoder", ratio=1, overflow="fold")
    table.add_column("mean ± 95 %", justify="right", no_wrap=True)
    table.add_column("median [min, max]", justify="right", no_wrap=True)
    for column, group in group_by(own, lambda cell: cell.column).items():
        winner, keys, names = best(group), row_keys(group), row_names(group)
        metric = f"{column.metric} {group[0].arrow}" + (f" ({column.split})" if column.split != "test" else "")
        protocols = ", ".join(dict.fromkeys(cell.protocol + " (online)" * cell.online for cell in group))
        beside = max(cell.chosen_on for cell in group)
        labels = f"{column.labels} labels" + f", and {beside} to choose weights" * bool(beside)
        heading = [column.task, metric, labels, protocols]
        for i, cell in enumerate(group):
            told = heading[i:] if cell is group[-1] else heading[i : i + 1]  # a line a row, what is left in the last
            mark = MARKS[found[cell].mark] if cell in found else ""
            name = names[keys[cell]].replace(" · ", "\n")
            texts = ["\n".join(told), name, f"{format_value(cell)} {mark:1}", format_median(cell)]
            table.add_row(*map(Text, texts), style="bold" if cell is winner else None)
        table.add_section()
    return table
