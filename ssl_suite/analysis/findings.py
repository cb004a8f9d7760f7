"""What an analysis found: rows for a table, figures for a page, and the sentence that sums it up."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_suite import __version__
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import locked, write_text

if TYPE_CHECKING:
    from markupsafe import Markup

Row = Mapping[str, Any]
"""One number: what it is of (encoder, layer, step, ...), `measure` and `value`."""


TABLE, KEPT, PAGE = "rows.csv", "rows.json", "report.html"


@dataclass(frozen=True)
class Exhibit:
    """A figure, or a table, of the page.

    Attributes:
        title: what it shows.
        figure: inline SVG; None for a table.
        caption: how to read it.
        legend: (CSS colour, label) pairs.
        head: of a table: its columns.
        body: of a table: its rows.
        prose: whether the table holds texts rather than numbers.
    """

    title: str
    figure: Markup | None = None
    caption: str = ""
    legend: Sequence[tuple[str, str]] = ()
    head: Sequence[str] = ()
    body: Sequence[Sequence[str]] = ()
    prose: bool = False


@dataclass(frozen=True)
class Findings:
    """What an analysis returns.

    Attributes:
        analysis: its name on the command line.
        title: the question.
        answer: in a sentence, with its figure.
        rows: every number there is.
        exhibits: what the page shows.
        about: what was looked at: encoders, with a hash of their weights, and data.
        notes: how the numbers were made.
    """

    analysis: str
    title: str
    answer: str
    rows: Sequence[Row]
    exhibits: Sequence[Exhibit]
    about: Mapping[str, str]
    notes: Sequence[str] = field(default=())


def check_out(out: Path) -> None:
    """Raises UserError where a folder for results is none, or has files by their names that no analysis wrote."""
    if not next(path for path in (out, *out.absolute().parents) if path.exists()).is_dir():
        raise UserError(f"{out} is not a folder, or lies below a file; choose another --out.")
    there = [out / name for name in (TABLE, KEPT, PAGE) if (out / name).exists()]
    if there and not _is_ours(out / KEPT):
        raise UserError(f"{there[0]} was not written by `analyze` and is not replaced; choose another --out.")


def _is_ours(kept: Path) -> bool:
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"analysis", "command", "rows"} <= found.keys()


def publish(findings: Findings, out: Path, command: str) -> Path:
    """Writes `rows.csv`, `rows.json` and `report.html`, in the place of an earlier run's.

    Args:
        findings: of an analysis.
        out: folder.
        command: the command line, which the page and the rows keep.

    Returns:
        The page.

    Raises:
        UserError: files of those names are there that no analysis wrote.
    """
    from ssl_suite.bench.page import render

    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    shared = {"analysis": findings.analysis, "command": command, "created": made, "version": __version__}
    columns = list(dict.fromkeys(name for row in findings.rows for name in row))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(findings.rows)
    kept = {
        **shared,
        "answer": findings.answer,
        "about": dict(findings.about),
        "rows": list(map(_plain, findings.rows)),
    }
    page = render(Path(__file__).parent / "findings.html.jinja", {"found": findings, **shared})
    check_out(out)
    with locked(out):
        write_text(out / KEPT, json.dumps(kept, indent=1, ensure_ascii=False, allow_nan=False))
        write_text(out / TABLE, table.getvalue())
        write_text(out / PAGE, page)
    return out / PAGE


def _plain(row: Row) -> dict[str, Any]:
    """A row without NaN, which JSON does not have."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
