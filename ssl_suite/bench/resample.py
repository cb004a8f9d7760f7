"""A metric under resampled test rows: the same draws for every run that was scored on the same rows.

A draw is a weight a row, how often it was taken, so a metric is computed for thousands of draws at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DRAWS = 2000
HELD = 4_000_000  # weights in memory at a time


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What each test example adds to a metric.

    Attributes:
        ids: (N,) names of the examples, sorted.
        values: (N, 2) pairs of numbers.
        statistic: how the metric is made of them.
    """

    ids: tuple[str, ...]
    values: Array
    statistic: str


def score(outcomes: Outcomes, weights: Array) -> Array:
    """The metric of each draw.

    Args:
        outcomes: of N rows.
        weights: (R, N) how often each draw took each row.

    Returns:
        (R,); 0 where the metric is undefined, as where all answers are the same for a correlation.
    """
    return STATISTICS.get(outcomes.statistic, ratio)(weights, *outcomes.values.T)


def resampled(runs: list[Outcomes], draws: int = DRAWS, seed: int = 0) -> Array:
    """Each run's metric under the same draws of test rows.

    Args:
        runs: scored on the same rows, in the same order.
        draws: R, how many.
        seed: of the draws.

    Returns:
        (runs, R).
    """
    n, random = len(runs[0].ids), np.random.default_rng(seed)
    size = max(1, HELD // n)
    parts = []
    for start in range(0, draws, size):
        weights = random.multinomial(n, np.full(n, 1 / n), min(size, draws - start)).astype(np.float64)
        parts.append(np.stack([score(run, weights) for run in runs]))
    return np.concatenate(parts, 1)


def ratio(weights: Array, numerator: Array, denominator: Array) -> Array:
    return _over(weights @ numerator, weights @ denominator)


def pearson(weights: Array, x: Array, y: Array) -> Array:
    """Of `x` and `y`, each (N,) or one row a draw."""
    total = weights.sum(1, keepdims=True)
    dx, dy = (v - (weights * v).sum(1, keepdims=True) / total for v in (x, y))
    both, xx, yy = ((weights * product).sum(1) for product in (dx * dy, dx * dx, dy * dy))
    return _over(both, np.sqrt(xx * yy))


def spearman(weights: Array, x: Array, y: Array) -> Array:
    return pearson(weights, _ranks(weights, x), _ranks(weights, y))


def matthews(weights: Array, prediction: Array, target: Array) -> Array:
    """Of several classes, as scikit-learn's `matthews_corrcoef`."""
    said, true, right = _counts(weights, prediction, target)
    n, correct = weights.sum(1), right.sum(1)
    spread = (n**2 - (said**2).sum(1)) * (n**2 - (true**2).sum(1))
    return _over(correct * n - (said * true).sum(1), np.sqrt(spread))


def macro_f1(weights: Array, prediction: Array, target: Array) -> Array:
    """Mean F1 over the classes that occur in a draw, as an answer or a truth."""
    said, true, right = _counts(weights, prediction, target)
    return _over(_over(2 * right, said + true).sum(1), ((said + true) > 0).sum(1).astype(np.float64))


STATISTICS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "ratio": ratio,
    "pearson": pearson,
    "spearman": spearman,
    "matthews": matthews,
    "macro_f1": macro_f1,
}


def _counts(weights: Array, prediction: Array, target: Array) -> tuple[Array, Array, Array]:
    """(R, C) each: how often a class was said, is true, and was said rightly."""
    classes = np.unique(np.concatenate([prediction, target]))
    said, true = (values[:, None] == classes for values in (prediction, target))
    return weights @ said, weights @ true, weights @ (said & true)


def _ranks(weights: Array, values: Array) -> Array:
    """(R, N) mean rank of each value among the rows of its draw, equal values sharing theirs."""
    _, group = np.unique(values, return_inverse=True)
    taken = np.zeros((len(weights), group.max() + 1))
    np.add.at(taken.T, group, weights.T)
    return (taken.cumsum(1) - (taken - 1) / 2)[:, group]


def _over(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
