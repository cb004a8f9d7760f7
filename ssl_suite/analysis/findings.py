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
from ssl_suite.core.files import locked, write_text

if TYPE_CHECKING:
    from markupsafe import Markup

Row = Mapping[str, Any]
"""One number: what it is of (encoder, layer, step, ...), `measure` and `value`."""


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


def publish(findings: Findings, out: Path, command: str) -> Path:
    """Writes `rows.csv`, `rows.json` and `report.html`, in the place of an earlier run's.

    Args:
        findings: of an analysis.
        out: folder.
        command: the command line, which the page and the rows keep.

    Returns:
        The page.
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
    with locked(out):
        write_text(out / "rows.csv", table.getvalue())
        write_text(out / "rows.json", json.dumps(kept, indent=1, ensure_ascii=False, allow_nan=False))
        write_text(out / "report.html", page)
    return out / "report.html"


def _plain(row: Row) -> dict[str, Any]:
    """A row without NaN, which JSON does not have."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
