"""`ssl-suite results FILE`: rows of a results file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ssl_suite.cli.parser import Parser
from ssl_suite.core.errors import UserError

if TYPE_CHECKING:
    from ssl_suite.bench.stats import Cell

ABOUT = "rows of a results file, as a table or JSON"


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite results", description=ABOUT)
    parser.add_argument("file", help="results.sqlite, or the folder that holds it")
    parser.add_argument("--format", choices=("table", "json", "superb"), default="table")
    for name in ("modality", "name", "method", "role", "task", "metric", "split"):
        parser.add_argument(f"--{name}", help=f"only this {name}")
    options = vars(parser.parse_args(arguments))
    path, style = Path(options.pop("file")), options.pop("format")
    path = path / "results.sqlite" if path.is_dir() else path
    if not path.exists():
        raise UserError(f"There is no results file {path}; `ssl-suite test` and `ssl-suite bench` write one.")
    from ssl_suite.bench.store import Store, to_json

    everything = Store(path).rows()
    wanted = {k: v for k, v in options.items() if v is not None}
    for name, value in wanted.items():
        there = sorted({str(getattr(row, name)) for row in everything})
        if value not in there:
            raise UserError(f"{path} has no {name} {value!r}; it has {', '.join(there) or 'no results'}.")
    rows = [row for row in everything if all(getattr(row, name) == value for name, value in wanted.items())]
    if not rows:
        asked = ", ".join(f"{name} {value}" for name, value in wanted.items())
        raise UserError(f"{path} has no results" + (f" with {asked} together." if asked else " yet."))
    if style == "json":
        print(to_json(rows))
        return
    from rich.console import Console

    from ssl_suite.bench.published import published_tables, read_published
    from ssl_suite.bench.stats import summarise
    from ssl_suite.bench.table import format_table

    def shown(cell: Cell) -> bool:
        return all(getattr(cell, name) == value for name, value in wanted.items())

    cells = summarise(everything, path.parent)
    if style == "superb":
        from ssl_suite.bench.superb import superb_tables

        Console().print(*superb_tables(filter(shown, cells)), sep="\n")
        return
    Console().print(format_table(cells, shown), *published_tables(read_published(path.parent), cells), sep="\n")
    for row in rows:
        if row.error:
            print(f"{row.run} gave no result: {row.error}")
