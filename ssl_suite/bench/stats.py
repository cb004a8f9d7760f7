"""Statistics over seeds and test rows: intervals of means and of differences, and which differences count.

The variance of a mean over seeds has two parts. That of the seeds is s²/n, as always: three seeds are too few to be
resampled. That of the test rows is of the mean under resampled rows (`resample`), the same draws for all that was
scored on the same rows, so that differences are paired. Both add up, and Student's t has the degrees of freedom of
Welch and Satterthwaite. Where outcomes of single rows are missing, what remains is Welch's interval over seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ssl_suite.bench.outcome_files import read_outcomes
from ssl_suite.bench.resample import Outcomes, resampled

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
    data_hash: str
    split: str
    metric: str
    main: bool
    direction: str
    labels: int
    online: bool


@dataclass(frozen=True)
class Cell:
    """The results of one encoder on one task, over seeds.

    Attributes:
        column: the task, and how it was scored.
        name: of the encoder or baseline.
        method: as in `Result`.
        role: as in `Result`.
        encoder: as in `Result`.
        weights: as in `Result`.
        protocol: as in `Result`.
        recipe: as in `Result`.
        seeds: all of them.
        values: the finite results, one a seed.
        mean: of `values`; NaN if there are none.
        validation: mean of the main metric on the validation split; NaN unless all seeds have it.
        chosen_on: as in `Result`, the most of any seed.
        deterministic: whether all seeds gave the same, down to single test rows where those are known: they are one
            run, however often it was repeated.
        rows: the mean over seeds under each draw of test rows; None where outcomes are missing.
        examples: names of the test rows.
    """

    column: Column
    name: str
    method: str
    role: str
    encoder: str
    weights: str
    protocol: str
    recipe: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    validation: float = math.nan
    chosen_on: int = 0
    deterministic: bool = False
    rows: Any = field(default=None, compare=False, repr=False)
    examples: tuple[str, ...] = field(default=(), compare=False, repr=False)

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

    @property
    def half_width(self) -> float:
        """Of the 95 % interval of the mean; NaN for one seed, and for one run repeated whose rows are not known."""
        return half_width([self.seed_variance, self.row_variance], CONFIDENCE)

    @property
    def seed_variance(self) -> Part:
        """Of the mean; NaN for one seed. A run that repeats itself exactly does not vary, if its test rows say so."""
        if len(self.values) < 2 or (self.deterministic and self.rows is None):
            return Part(math.nan, 1)
        return Part(_squared_error(self.values), len(self.values) - 1)

    @property
    def row_variance(self) -> Part:
        """Of the mean, 0 where outcomes are missing."""
        return Part(0.0, 1) if self.rows is None else Part(float(self.rows.var(ddof=1)), len(self.examples) - 1)


class Part(NamedTuple):
    """A part of a variance, and its degrees of freedom."""

    variance: float
    freedom: float


@dataclass(frozen=True)
class Verdict:
    """How a cell compares with another.

    Attributes:
        other: the cell it is compared with.
        gain: by how much it is better, whichever way the metric points.
        half_width: of the gain's interval, at the level that Holm's correction leaves it; NaN where it is unknown.
        mark: +1 if the interval lies above zero, −1 if below, else 0.
    """

    other: Cell
    gain: float
    half_width: float
    mark: int

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.half_width)


def with_interval(mean: float, half: float, form: str = ".3f", half_form: str | None = None) -> str:
    """A mean as a text, with the half width of its interval if that is known."""
    return f"{mean:{form}} ± {half:{half_form or form}}" if math.isfinite(half) else f"{mean:{form}}"


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
    return mean, half_width([Part(_squared_error(values), len(values) - 1)], confidence)


def summarise(rows: Iterable[Result], folder: Path | None = None) -> list[Cell]:
    """Group results over seeds, in the order they come in; everything else that differs makes another cell.

    Args:
        rows: of a store; runs that failed count as seeds without a number.
        folder: of the store, where the runs' outcomes are looked for; None: without them.
    """
    rows = list(rows)
    failed = group_by((r for r in rows if r.error), lambda row: (row.task, row.name, row.role, row.encoder))
    groups = group_by(
        (r for r in rows if not r.error),
        lambda row: (_column(row), row.name, row.method, row.role, row.encoder, row.weights, row.protocol, row.recipe),
    )
    outcomes = {key: _outcomes(results, folder) for key, results in groups.items()}
    drawn = _draw(outcomes)
    cells = []
    for key, results in groups.items():
        column, name, _, role, encoder, *_ = key
        values = tuple(row.value for row in results if math.isfinite(row.value))
        seeds = [row.seed for row in results]
        seeds += [r.seed for r in failed.get((column.task, name, role, encoder), ()) if r.seed not in seeds]
        runs = outcomes[key]
        same = len(values) > 1 and len(set(values)) == 1 and all((run.values == runs[0].values).all() for run in runs)
        validation = mean_interval([row.validation for row in results])[0]
        cells.append(
            Cell(
                *key,
                seeds=tuple(seeds),
                values=values,
                mean=mean_interval(values)[0],
                validation=validation,
                chosen_on=max(row.chosen_on for row in results),
                deterministic=same,
                rows=drawn.get(key),
                examples=runs[0].ids if runs else (),
            )
        )
    return cells


def _outcomes(results: Sequence[Result], folder: Path | None) -> list[Outcomes]:
    """Of each run, in the order of `results`; none unless all have them, of the same rows."""
    if folder is None or not all(math.isfinite(row.value) for row in results):
        return []
    found = [read_outcomes(folder / row.run, row) for row in results]
    runs = [run for run in found if run is not None]
    return runs if len(runs) == len(found) and len({run.ids for run in runs}) == 1 else []


def _draw(outcomes: dict[K, list[Outcomes]]) -> dict[K, Any]:
    """The mean over each cell's runs under each draw; cells that were scored on the same rows share their draws."""
    drawn = {}
    for keys in group_by((key for key, runs in outcomes.items() if runs), lambda key: outcomes[key][0].ids).values():
        flat = resampled([run for key in keys for run in outcomes[key]])
        start = 0
        for key in keys:
            drawn[key] = flat[start : start + len(outcomes[key])].mean(0)
            start += len(outcomes[key])
    return drawn


def difference(cell: Cell, other: Cell) -> tuple[float, list[Part]]:
    """By how much `cell` is better than `other`, whichever way the metric points, and the parts of its variance.

    The parts are NaN where either cell has a seed without a number or too few runs.
    """
    gain = cell.sign * (cell.mean - other.mean)
    if cell.missing or other.missing:
        return gain, [Part(math.nan, 1)]
    if cell.rows is None or other.rows is None:  # what is known of one side's rows alone says nothing
        cell, other = replace(cell, rows=None), replace(other, rows=None)
        return gain, [cell.seed_variance, other.seed_variance]
    if cell.examples != other.examples:
        return gain, [cell.seed_variance, other.seed_variance, cell.row_variance, other.row_variance]
    paired = Part(float((cell.rows - other.rows).var(ddof=1)), len(cell.examples) - 1)
    return gain, [cell.seed_variance, other.seed_variance, paired]


def verdicts(cells: Sequence[Cell], reference: Callable[[Cell, Sequence[Cell]], Cell | None]) -> dict[Cell, Verdict]:
    """Compares each self-supervised cell with its reference, corrected for the number of comparisons (Holm 1979).

    The main metrics of all tasks are one family, the metrics beside them another, online figures theirs. An interval
    is at the level at which its comparison is tested, so it leaves out zero exactly where the difference counts.

    Args:
        cells: all there are.
        reference: what a cell is compared with, looked up among all of them.
    """
    pairs = [(c, other) for c in cells if c.role == "ssl" and (other := reference(c, cells)) is not None]
    found: dict[Cell, Verdict] = {}
    for family in group_by(pairs, lambda pair: (pair[0].column.main, pair[0].online)).values():
        compared = [(cell, other, *difference(cell, other)) for cell, other in family]
        tested = [(p_value(gain, parts), cell) for cell, _, gain, parts in compared]
        levels = _holm({cell: p for p, cell in tested if math.isfinite(p)})
        for cell, other, gain, parts in compared:
            half = half_width(parts, 1 - levels[cell]) if cell in levels else math.nan
            found[cell] = Verdict(other, gain, half, int(math.copysign(1, gain)) if abs(gain) > half else 0)
    return found


def _holm(p_values: dict[Cell, float], level: float = 1 - CONFIDENCE) -> dict[Cell, float]:
    """The level each comparison is tested at; after the first that fails none passes, so the rest share its level."""
    levels, failed = {}, 0.0
    for i, (cell, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        levels[cell] = failed or level / (len(p_values) - i)
        failed = failed or (levels[cell] if p >= levels[cell] else 0.0)
    return levels


def p_value(gain: float, parts: Sequence[Part]) -> float:
    """Two-sided, of no difference; NaN where nothing varies or the variance is unknown: no claim is made of that."""
    from scipy.special import stdtr  # comes with scikit-learn

    variance = math.fsum(part.variance for part in parts)
    return float(2 * stdtr(_freedom(parts), -abs(gain) / math.sqrt(variance))) if variance > 0 else math.nan


def half_width(parts: Sequence[Part], confidence: float) -> float:
    """Of a two-sided Student t interval; NaN where the variance is unknown."""
    from scipy.special import stdtrit

    variance = math.fsum(part.variance for part in parts)
    if not variance > 0:
        return variance
    return float(stdtrit(_freedom(parts), (1 + confidence) / 2)) * math.sqrt(variance)


def _freedom(parts: Sequence[Part]) -> float:
    """Of a sum of variances, after Welch and Satterthwaite."""
    total = math.fsum(part.variance for part in parts)
    return total**2 / math.fsum(part.variance**2 / max(part.freedom, 1) for part in parts)


def random_of(cell: Cell, cells: Iterable[Cell]) -> Cell | None:
    """The random-weights cell of the same encoder, judged on the same task by the same recipe."""

    def key(c: Cell) -> tuple[Any, ...]:
        return c.column, c.encoder, c.protocol, c.recipe

    return next((other for other in cells if other.role == "random" and key(other) == key(cell)), None)


def simple_of(cell: Cell, cells: Iterable[Cell]) -> Cell | None:
    """The best simple baseline of the same task."""
    return best(other for other in cells if other.role == "simple" and other.column == cell.column)


def best(cells: Iterable[Cell]) -> Cell | None:
    """The cell with the best mean, among those in which every seed gave a number."""
    complete = [cell for cell in cells if cell.values and not cell.missing]
    return max(complete, key=lambda cell: cell.sign * cell.mean, default=None)


def chosen(cells: Iterable[Cell]) -> Cell | None:
    """The best on the validation split, or on the split itself where not all were validated."""
    complete = [cell for cell in cells if cell.values and not cell.missing]
    if not all(math.isfinite(cell.validation) for cell in complete):
        return best(complete)
    return max(complete, key=lambda cell: cell.sign * cell.validation, default=None)


def group_by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by their key, both in order of first appearance."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _column(row: Result) -> Column:
    return Column(*(getattr(row, name) for name in Column._fields))


def _squared_error(values: Sequence[float]) -> float:
    """Squared standard error of the mean; exactly 0 if all values are equal."""
    if min(values) == max(values):
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)
