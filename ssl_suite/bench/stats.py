"""Statistics over seeds: means, Student t intervals, and whether one cell beats another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from ssl_suite.bench.store import Result

CONFIDENCE = 0.95
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Column(NamedTuple):
    """What makes two results comparable."""

    modality: str
    task: str
    data: str
    split: str
    metric: str
    direction: str
    labels: int
    online: bool


@dataclass(frozen=True)
class Cell:
    """The results of one method on one task, over seeds.

    Attributes:
        column: the task, and how it was scored.
        method: name of the method or baseline.
        role: as in `Result`.
        encoder: as in `Result`.
        protocol: as in `Result`.
        seeds: all of them.
        values: the finite results, one a seed.
        mean: of `values`; NaN if there are none.
        half_width: of the 95 % Student t interval; NaN with fewer than two values.
    """

    column: Column
    method: str
    role: str
    encoder: str
    protocol: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    half_width: float

    @property
    def modality(self) -> str:
        return self.column.modality

    @property
    def task(self) -> str:
        return self.column.task

    @property
    def split(self) -> str:
        return self.column.split

    @property
    def metric(self) -> str:
        return self.column.metric

    @property
    def labels(self) -> int:
        return self.column.labels

    @property
    def online(self) -> bool:
        return self.column.online

    @property
    def sign(self) -> int:
        """+1 if more is better, -1 if less is."""
        return 1 if self.column.direction == "max" else -1

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↑" if self.column.direction == "max" else "↓"

    @property
    def median(self) -> float:
        """Over seeds; NaN without any value. A diverged seed moves it less than the mean."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def missing(self) -> int:
        """How many seeds gave no number; such a cell is shown, but wins nothing."""
        return len(self.seeds) - len(self.values)


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Mean and half width of its Student t interval.

    Args:
        values: one a seed.
        confidence: of the two-sided interval.

    Returns:
        The mean (NaN without values) and the half width (NaN with fewer than two values).
    """
    if not values:
        return math.nan, math.nan
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, _t_quantile(confidence, len(values) - 1) * math.sqrt(_squared_error(values))


def summarise(rows: Iterable[Result]) -> list[Cell]:
    """Group results over seeds, in the order they come in; everything else that differs makes another cell."""
    groups = group_by(rows, lambda row: (_column(row), row.method, row.role, row.encoder, row.protocol))
    cells = []
    for (column, method, role, encoder, protocol), results in groups.items():
        values = tuple(row.value for row in results if math.isfinite(row.value))
        seeds = tuple(row.seed for row in results)
        cells.append(Cell(column, method, role, encoder, protocol, seeds, values, *mean_interval(values)))
    return cells


def difference(cell: Cell, other: Cell, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """By how much `cell` is better than `other`, and the half width of that difference's interval (Welch).

    Returns:
        The gain, positive if `cell` is better whichever way the metric points, and the half width: NaN where either
        cell has fewer than two values or a seed without one.
    """
    gain = cell.sign * (cell.mean - other.mean)
    if min(len(cell.values), len(other.values)) < 2 or cell.missing or other.missing:
        return gain, math.nan
    a, b = _squared_error(cell.values), _squared_error(other.values)
    if a + b == 0:
        return gain, 0.0
    freedom = (a + b) ** 2 / (a**2 / (len(cell.values) - 1) + b**2 / (len(other.values) - 1))
    return gain, _t_quantile(confidence, freedom) * math.sqrt(a + b)


def beats(ssl_cell: Cell, random_cell: Cell) -> bool:
    """Whether the first is better by more than the 95 % interval of the difference; False where that is unknown."""
    gain, half_width = difference(ssl_cell, random_cell)
    return gain > half_width


def random_of(cell: Cell, cells: Iterable[Cell]) -> Cell | None:
    """The random-weights cell of the same encoder, judged on the same task in the same way."""
    key = (cell.column, cell.encoder, cell.protocol)
    same = (other for other in cells if other.role == "random" and (other.column, other.encoder, other.protocol) == key)
    return next(same, None)


def wins(cell: Cell, cells: Iterable[Cell]) -> bool:
    """Whether a self-supervised cell beats the random weights of its own encoder, looked up among `cells`."""
    untrained = random_of(cell, cells)
    return cell.role == "ssl" and untrained is not None and beats(cell, untrained)


def best(cells: Iterable[Cell]) -> Cell | None:
    """The cell with the best mean, among those in which every seed gave a number."""
    complete = [cell for cell in cells if cell.values and not cell.missing]
    return max(complete, key=lambda cell: cell.sign * cell.mean, default=None)


def row_key(cell: Cell) -> tuple[str, str, str, str]:
    """What makes two cells the same row of a table: role, method, encoder and protocol."""
    return cell.role, cell.method, cell.encoder, cell.protocol


def row_names(cells: Iterable[Cell]) -> dict[tuple[str, str, str, str], str]:
    """A row's name: its method, with encoder and protocol only where they tell two rows apart."""
    names = {}
    keys = dict.fromkeys(map(row_key, cells))
    for role, method, encoder, protocol in keys:
        same = [key for key in keys if key[:2] == (role, method)]
        parts = ["random weights" if method == "random" else method]
        parts += [encoder] * (len({key[2] for key in same}) > 1) + [protocol] * (len({key[3] for key in same}) > 1)
        names[role, method, encoder, protocol] = " · ".join(parts)
    return names


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


def group_by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by their key, both in order of first appearance."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _column(row: Result) -> Column:
    return Column(row.modality, row.task, row.data, row.split, row.metric, row.direction, row.labels, row.online)


def _squared_error(values: Sequence[float]) -> float:
    """Squared standard error of the mean; exactly 0 if all values are equal."""
    if min(values) == max(values):
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)


def _t_quantile(confidence: float, freedom: float) -> float:
    from scipy.special import stdtrit  # comes with scikit-learn

    return float(stdtrit(freedom, (1 + confidence) / 2))
