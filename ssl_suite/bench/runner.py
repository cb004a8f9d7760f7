"""Runs a benchmark: pretrain each encoder, judge it on each task over seeds beside its baselines, then report.

Every cell is a command line a user could have typed; it is what the results store keeps beside the number.
"""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from ssl_suite.bench.benchmark import Settings, load_benchmark, select
from ssl_suite.bench.commands import CommandLine
from ssl_suite.bench.published import published_tables, write_published
from ssl_suite.bench.stats import summarise
from ssl_suite.bench.store import Store
from ssl_suite.bench.table import format_table
from ssl_suite.bench.work import Work
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import locked
from ssl_suite.plugins import load_all


def run_benchmark(
    path: Path,
    through: CommandLine,
    out: Path | None,
    only: list[str] | None,
    seeds: list[int] | None,
    encoders: list[str] | None = None,
    settings: Settings | None = None,
    only_tasks: list[str] | None = None,
    jobs: int = 1,
) -> Path:
    """Runs what is not done yet, prints the table and writes the report.

    A run that fails does not stop the others; it is a row that says why.

    Args:
        path: of the benchmark.
        through: runs the command lines that a benchmark is made of.
        out: folder for everything; default: runs/NAME.
        only: names of the encoders to keep.
        seeds: instead of the benchmark's.
        encoders: folders or URIs of encoders to judge beside the benchmark's own.
        settings: options of all tasks, over the benchmark's own: where the data are, say.
        only_tasks: names of the tasks to keep.
        jobs: runs of tasks at a time.

    Returns:
        The report.

    Raises:
        UserError: what is asked cannot be run, which is found before anything is trained; another process is at work in
            the folder; or, at the end, some runs failed.
    """
    from ssl_suite.bench.exhibits import write_exhibits
    from ssl_suite.bench.report import build_report

    load_all()
    benchmark = select(load_benchmark(path), path, only, seeds, encoders or [], settings or {}, only_tasks)
    out = out or Path("runs") / benchmark.name
    console, started = Console(), time.time()
    with locked(out):
        work = Work(benchmark, out, console, through, jobs)
        work.pretrain()
        work.judge()
        with console.status("Exhibits and report"):
            write_exhibits(work.made, benchmark.exhibits, out)
            write_published(benchmark.published, out)
            report = build_report(out)
    rows = summarise(Store(out / "results.sqlite").rows(), out)
    console.print(format_table(rows, lambda cell: cell.column.main and cell.split == "test"))
    console.print(*published_tables(benchmark.published, rows), sep="\n")
    console.print(f"{time.time() - started:.0f} s. Report: {report}")
    if work.failures:
        raise UserError(f"{len(work.failures)} runs gave no result; the first: {work.failures[0]}")
    return report
