"""SUPERB's numbers for an upstream: its score against a frozen reference, and the mean of its eleven metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from statistics import mean
from typing import TYPE_CHECKING

from ssl_suite.core.errors import UserError

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


@dataclass(frozen=True)
class Published:
    """A row of SUPERB's leaderboard, percent in the order of `METRICS`."""

    name: str
    percent: tuple[float, ...]

    @property
    def figures(self) -> dict[tuple[str, str], float]:
        return dict(zip(METRICS, self.percent, strict=True))


FBANK = Published("FBANK", (82.01, 8.63, 9.10, 8.5e-4, 35.39, 23.18, 0.58, 69.64, 52.94, 9.56, 10.05))
WAV2VEC2 = Published("wav2vec 2.0 base", (5.74, 96.23, 92.35, 75.18, 63.43, 6.43, 2.33, 88.30, 24.77, 6.02, 6.08))
HUBERT = Published("HuBERT base", (5.41, 96.30, 98.34, 81.42, 64.92, 6.42, 7.36, 88.53, 25.20, 5.11, 5.88))
WAVLM = Published("WavLM large", (3.06, 97.86, 99.31, 95.49, 70.62, 3.44, 8.86, 92.21, 18.36, 3.77, 3.24))
"""As in the papers of SUPERB (arXiv:2105.01051, table 2) and WavLM (arXiv:2110.13900, table 1)."""

VERSION, LOW, HIGH = "2022-1", FBANK, WAVLM
"""The reference: 0 is a log-mel filter bank, 1000 WavLM large. The SUPERB challenge of 2022 took other values for its
best rows, so that its scores are not these; whoever changes a number here changes the version."""


def score(figures: Figures) -> float:
    """superb_s: the mean over tasks of how far an upstream is from `LOW` (0) to `HIGH` (1000).

    A task of two metrics counts once; those without figures are left out.
    """
    low, high = LOW.figures, HIGH.figures
    points: dict[str, list[float]] = {}
    for key, value in figures.items():
        points.setdefault(key[0], []).append(1000 * (value - low[key]) / (high[key] - low[key]))
    return mean(mean(of_task) for of_task in points.values())


def overall(figures: Figures) -> float | None:
    """The mean of all eleven metrics, error rates taken from 100 (WavLM's table 1); None where one is missing."""
    if set(figures) != set(METRICS):
        return None
    return mean(value if METRICS[key] > 0 else 100 - value for key, value in figures.items())


def figures_of(cells: Iterable[Cell]) -> dict[str, dict[tuple[str, str], float]]:
    """Encoder or baseline → its test figures in tasks of SUPERB's names; of `ER, session N` the mean."""
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for cell in cells:
        key = (cell.task.partition(",")[0], cell.metric)
        if key in METRICS and cell.split == "test" and cell.values and not cell.online:
            name = {"random": f"random weights of {cell.encoder}"}.get(cell.role, cell.name)
            found.setdefault(name, {}).setdefault(key, []).append(100 * cell.mean)
    return {name: {key: mean(values) for key, values in figures.items()} for name, figures in found.items()}


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
    yield _table("Published (quoted)", {row.name: row.figures for row in (FBANK, WAV2VEC2, HUBERT, WAVLM)})


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
