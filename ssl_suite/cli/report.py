"""`ssl-suite report FOLDER`: one HTML page."""

from __future__ import annotations

from ssl_suite.cli.parser import Parser, place
from ssl_suite.core.errors import UserError

ABOUT = "one HTML page from a folder of runs"


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite report", description=ABOUT)
    parser.add_argument("folder", type=place, help="with results.sqlite and the runs' folders")
    folder = parser.parse_args(arguments).folder
    if not (folder / "results.sqlite").exists():
        raise UserError(f"{folder} has no results.sqlite; `ssl-suite bench` and `fit --test_after true` make one.")
    from ssl_suite.bench.report import build_report

    print(build_report(folder))
