"""SUPERB's numbers for an upstream: its score against a frozen reference, and the mean of its eleven metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from statistics import mean
from typing import TYPE_CHECKING

from ssl_suite.bench.benchmark import load_benchmark
from ssl_suite.bench.published import own_figures
from ssl_suite.core.errors import UserError
from ssl_suite.names import recipe_folder

if TYPE_CHECKING:
    from rich.table import Table

    from ssl_suite.bench.stats import Cell

Figures = Mapping[tuple[str, str], float]
"""(task, metric) → percent."""

METRICS = {
    ("PR", "per"): -1, ("KS", "accuracy"): 1, ("IC", "accuracy"): 1, ("SID", "accuracy"): 1, ("ER", "accuracy"): 1,
    ("ASR", "wer"): -1, ("QbE", "mtwv"): 1, ("SF", "slot_f1"): 1, ("SF", "slot_cer"): -1, ("ASV", "eer"): -1,
    ("SD", "der"): -1,
}  # fmt: skip
"""Of `bench/superb`: +1 if more is better, −1 if less is."""

PUBLISHED = load_benchmark(recipe_folder() / "bench/superb.yaml").published[0]
"""Rows of SUPERB's leaderboard."""


def published(name: str) -> dict[tuple[str, str], float]:
    """(task, metric) → percent, of one of them."""
    return {_key(column): figure for column, figure in PUBLISHED.row(name).items()}


def _key(column: str) -> tuple[str, str]:
    task, _, metric = column.partition(" ")
    return task, metric


VERSION, LOW, HIGH = "2022-1", published("FBANK"), published("WavLM large")
"""The reference: 0 is a log-mel filter bank, 1000 WavLM large. The SUPERB challenge of 2022 took other values for its
best rows, so that its scores are not these; whoever changes a number here changes the version."""


def score(figures: Figures) -> float:
    """superb_s: the mean over tasks of how far an upstream is from `LOW` (0) to `HIGH` (1000).

    A task of two metrics counts once; those without figures are left out.
    """
    points: dict[str, list[float]] = {}
    for key, value in figures.items():
        points.setdefault(key[0], []).append(1000 * (value - LOW[key]) / (HIGH[key] - LOW[key]))
    return mean(mean(of_task) for of_task in points.values())


def overall(figures: Figures) -> float | None:
    """The mean of all eleven metrics, error rates taken from 100 (WavLM's table 1); None where one is missing."""
    if set(figures) != set(METRICS):
        return None
    return mean(value if METRICS[key] > 0 else 100 - value for key, value in figures.items())


def figures_of(cells: Iterable[Cell]) -> dict[str, dict[tuple[str, str], float]]:
    """Encoder or baseline → its test figures in tasks of SUPERB's names; of `ER, session N` the mean."""
    found = own_figures(cells, {" ".join(key) for key in METRICS})
    return {name: {_key(column): middle for column, (middle, _) in row.items()} for name, row in found.items()}


def superb_tables(cells: Iterable[Cell]) -> Iterator[Table]:
    """Our rows and published ones, for a terminal of 80 columns.

    Raises:
        UserError: no result is of a task of `bench/superb`.
    """
    ours = figures_of(cells)
    if not ours:
        names = ", ".join(dict.fromkeys(task for task, _ in METRICS))
        raise UserError(
            f"None of the results is of SUPERB's tasks ({names}); `ssl-suite bench -c bench/superb` runs them."
        )
    for first in range(0, len(ours), 6):
        yield _table("SUPERB", dict(islice(ours.items(), first, first + 6)))
    yield _table("Published (quoted)", {name: published(name) for name in PUBLISHED.rows})


def _table(title: str, rows: Mapping[str, Figures]) -> Table:
    from rich.table import Table

    caption = f"percent; superb_s {VERSION}: 0 is FBANK, 1000 is WavLM large, over the tasks there are"
    table = Table(title=title, caption=caption, pad_edge=False)
    table.add_column("task, metric", no_wrap=True)
    for name in rows:
        table.add_column(name, justify="right", min_width=6, overflow="fold")
    for key, sign in METRICS.items():
        figures = (f"{found[key]:.2f}" if key in found else "–" for found in rows.values())
        table.add_row(f"{key[0]} {key[1]} {'↑' if sign > 0 else '↓'}", *figures)
    table.add_section()
    table.add_row("superb_s ↑", *(f"{score(found):.0f}" for found in rows.values()), style="bold")
    means = (overall(found) for found in rows.values())
    table.add_row("mean of 11 ↑", *("–" if value is None else f"{value:.1f}" for value in means))
    return table
