"""Intervals hold seeds and test rows, agree with SciPy and slow references, and claim no more than they may."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from results import RESULT, over_seeds, untrained
from scipy import stats as scipy_stats
from sklearn.metrics import f1_score, matthews_corrcoef

from ssl_suite.bench.outcome_files import path_of, read_outcomes, write_outcomes
from ssl_suite.bench.resample import Outcomes, resampled, score
from ssl_suite.bench.stats import (
    Cell,
    Part,
    Verdict,
    best,
    chosen,
    difference,
    half_width,
    mean_interval,
    p_value,
    random_of,
    simple_of,
    summarise,
    verdicts,
)
from ssl_suite.bench.store import Result

ROWS = tuple(f"row {i:03}" for i in range(200))


def ratio(values: Sequence[float]) -> Outcomes:
    return Outcomes(ROWS[: len(values)], np.stack([np.asarray(values, float), np.ones(len(values))], 1), "ratio")


def verdict_of(rows: list[Result], folder: Path | None = None) -> Verdict:
    return next(iter(verdicts(summarise(rows, folder), random_of).values()))


def kept(folder: Path, runs: Sequence[Sequence[float]], **other: object) -> list[Result]:
    """Results over seeds with their outcomes beside them, as a benchmark leaves them."""
    rows = []
    for seed, right in enumerate(runs):
        name = f"{other.get('name', RESULT.name)}-{seed}"
        row = replace(RESULT, value=float(np.mean(right)), seed=seed, run=name, **other)  # type: ignore[arg-type]
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_outcomes(folder / name, row, [(i, float(v), 1.0) for i, v in zip(ROWS, right, strict=False)], "ratio")
        rows.append(row)
    return rows


# Seeds alone ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_intervals_over_seeds_are_those_of_scipy(count: int, confidence: float) -> None:
    values = np.random.default_rng(count).normal(0.8, 0.1, count).tolist()
    mean, half = mean_interval(values, confidence)
    low, high = scipy_stats.t.interval(confidence, count - 1, loc=np.mean(values), scale=scipy_stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_one_value_has_no_interval() -> None:
    mean, half = mean_interval([0.5])
    assert mean == 0.5
    assert math.isnan(half)
    assert all(map(math.isnan, mean_interval([])))


def test_without_outcomes_differences_are_welch_of_scipy() -> None:
    a, b = [0.91, 0.95, 0.9, 0.93], [0.6, 0.7, 0.65]
    gain, parts = difference(*summarise(over_seeds(a) + untrained(b)))
    expected = scipy_stats.ttest_ind(a, b, equal_var=False)
    interval, half = expected.confidence_interval(0.95), half_width(parts, 0.95)
    assert (gain - half, gain + half) == pytest.approx((interval.low, interval.high))
    assert p_value(gain, parts) == pytest.approx(expected.pvalue)


def test_marks_respect_direction_and_interval_and_losses_are_marked_too() -> None:
    def mark(values: list[float], baseline: list[float], direction: str = "max") -> int:
        return verdict_of(over_seeds(values, direction=direction) + untrained(baseline, direction=direction)).mark

    high, low, wide = [0.9, 0.91, 0.92], [0.5, 0.51, 0.52], [0.4, 0.9, 0.7]
    assert mark(high, low) == 1
    assert mark(low, high) == -1
    assert mark(low, high, "min") == 1
    assert mark(high, low, "min") == -1
    assert mark(wide, low) == 0
    assert mark([0.9], low) == 0, "one seed claims nothing"
    assert mark([0.9, 0.91, math.nan], low) == 0, "nor does a run that failed"
    assert mark([0.9] * 3, low) == 0, "repeats of one run are one run"
    assert mark([0.9] * 3, [0.5] * 3) == 0, "and no variance is no evidence"


def test_a_failed_run_is_a_seed_without_a_number() -> None:
    failed = replace(RESULT, seed=2, metric="", main=False, value=math.nan, error="the loss became nan")
    first, _ = summarise([*over_seeds([0.9, 0.91]), failed, *untrained([0.5, 0.51])])
    assert (first.seeds, first.missing) == ((0, 1, 2), 1)


def test_only_the_same_encoder_judged_alike_is_the_reference() -> None:
    rows = over_seeds([0.9, 0.91]) + untrained([0.5, 0.51], encoder="Other") + untrained([0.5, 0.51], recipe="77ab")
    cells = summarise(rows + untrained([0.5, 0.51], protocol="finetune@1"))
    assert random_of(cells[0], cells) is None
    cells = summarise(rows + untrained([0.4, 0.41]))
    reference = random_of(cells[0], cells)
    assert reference is not None
    assert reference.mean == pytest.approx(0.405)


def test_two_encoders_of_one_method_and_shape_are_two_cells() -> None:
    rows = over_seeds([0.9, 0.91]) + over_seeds([0.8, 0.81], weights="w1")
    assert [cell.values for cell in summarise(rows)] == [(0.9, 0.91), (0.8, 0.81)]
    rows = over_seeds([0.9, 0.91]) + over_seeds([0.8, 0.81], recipe="77ab")
    assert [cell.values for cell in summarise(rows)] == [(0.9, 0.91), (0.8, 0.81)]


def test_the_headlines_encoder_is_the_best_on_validation_not_on_test() -> None:
    rows = over_seeds([0.9, 0.91], validation=0.7) + over_seeds([0.8, 0.81], validation=0.8, name="B", weights="w1")
    found = chosen(summarise(rows))
    assert found is not None
    assert found.name == "B"
    lower = [replace(row, direction="min") for row in rows]
    found = chosen(summarise(lower))
    assert found is not None
    assert found.name == "SimCLR"


def test_the_best_ignores_cells_with_failed_seeds() -> None:
    winner = best(summarise(over_seeds([0.9, math.nan]) + over_seeds([0.8, 0.8], name="BYOL")))
    assert winner is not None
    assert winner.name == "BYOL"


# Test rows -----------------------------------------------------------------------------------------------------------


def slow(statistic: str, first: np.ndarray, second: np.ndarray) -> float:
    """The metric of rows that were written out as often as they were drawn."""
    if statistic == "ratio":
        return float(first.sum() / second.sum())
    if statistic in ("pearson", "spearman"):
        test = scipy_stats.pearsonr if statistic == "pearson" else scipy_stats.spearmanr
        return float(test(first, second)[0])
    if statistic == "matthews":
        return float(matthews_corrcoef(second, first))
    return float(f1_score(second, first, average="macro"))


@pytest.mark.parametrize("statistic", ["ratio", "pearson", "spearman", "matthews", "macro_f1"])
def test_metrics_of_draws_are_those_of_rows_written_out(statistic: str) -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 40)).round(1)
    second = second + first  # with ties, and related
    if statistic in ("matthews", "macro_f1"):
        second = random.integers(0, 4, 40)
        first = np.where(random.random(40) < 0.6, second, random.integers(0, 4, 40))
    if statistic == "ratio":
        first, second = random.integers(0, 5, 40), random.integers(1, 9, 40)
    weights = random.multinomial(40, np.full(40, 1 / 40), 25).astype(float)
    found = score(Outcomes(ROWS[:40], np.stack([first, second], 1).astype(float), statistic), weights)
    for draw, value in zip(weights.astype(int), found, strict=True):
        assert value == pytest.approx(slow(statistic, np.repeat(first, draw), np.repeat(second, draw)), abs=1e-9)


@pytest.mark.parametrize("statistic", ["ratio", "pearson", "spearman", "matthews", "macro_f1"])
def test_what_is_undefined_is_zero(statistic: str) -> None:
    constant = Outcomes(ROWS[:4], np.zeros((4, 2)), statistic)
    expected = 1.0 if statistic == "macro_f1" else 0.0  # every answer is the only class, and right
    assert score(constant, np.ones((2, 4))).tolist() == [expected, expected]


def test_draws_are_the_same_for_all_runs_and_every_time() -> None:
    right = np.random.default_rng(0).random((2, 200)) < 0.7
    runs = [ratio(right[0]), ratio(right[0]), ratio(right[1])]
    drawn = resampled(runs, 500)
    assert (drawn[0] == drawn[1]).all()
    assert (drawn == resampled(runs, 500)).all()
    p = right[0].mean()
    assert drawn[0].std() == pytest.approx(math.sqrt(p * (1 - p) / 200), rel=0.1)


def test_an_interval_holds_seeds_and_rows_as_a_slow_reference_does(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    ssl, base = (random.random((3, 200)) < p for p in (0.8, 0.7))
    cells = summarise(kept(tmp_path, ssl) + kept(tmp_path, base, name="random", role="random"), tmp_path)
    gain, parts = difference(*cells)
    draws = []
    for _ in range(4000):  # the same rows of both, the mean over seeds
        rows = random.integers(0, 200, 200)
        draws.append(ssl[:, rows].mean() - base[:, rows].mean())
    seeds = [np.var(runs.mean(1), ddof=1) / 3 for runs in (ssl, base)]
    total = sum(seeds) + np.var(draws, ddof=1)
    freedom = total**2 / (seeds[0] ** 2 / 2 + seeds[1] ** 2 / 2 + np.var(draws, ddof=1) ** 2 / 199)
    assert gain == pytest.approx(ssl.mean() - base.mean())
    expected = scipy_stats.t.ppf(0.975, freedom) * math.sqrt(total)
    assert half_width(parts, 0.95) == pytest.approx(expected, rel=0.05)
    own = [np.var(ssl.mean(1), ddof=1) / 3, float(np.var(resampled([ratio(r) for r in ssl]).mean(0), ddof=1))]
    freedom = sum(own) ** 2 / (own[0] ** 2 / 2 + own[1] ** 2 / 199)
    assert cells[0].half_width == pytest.approx(scipy_stats.t.ppf(0.975, freedom) * math.sqrt(sum(own)))


def test_the_same_rows_pair_a_difference(tmp_path: Path) -> None:
    easy = np.arange(200) < 100  # both are right on the same half; the encoder on twelve rows more
    runs = [easy | ((np.arange(200) >= 150 + s) & (np.arange(200) < 162 + s)) for s in range(3)]
    base = [easy ^ (np.arange(200) == 190 + s) for s in range(3)]
    rows = kept(tmp_path, runs) + kept(tmp_path, base, name="random", role="random")
    paired = verdict_of(rows, tmp_path)
    assert paired.mark == 1
    apart = [part.variance for cell in summarise(rows, tmp_path) for part in (cell.row_variance,)]
    assert paired.half_width < half_width([Part(sum(apart), 398)], 0.95)


def test_few_test_rows_take_away_what_seeds_alone_would_claim(tmp_path: Path) -> None:
    ssl = [np.arange(40) < n for n in (24, 24, 25)]
    base = [np.arange(40)[::-1] < n for n in (20, 20, 21)]  # right on other rows
    rows = kept(tmp_path, ssl) + kept(tmp_path, base, name="random", role="random")
    assert verdict_of(rows).mark == 1
    assert verdict_of(rows, tmp_path).mark == 0


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Three seeds, sixty rows, spread of both: runs over new seeds and new rows, their mean known."""
    random, inside = np.random.default_rng(0), []
    for _ in range(300):
        difficulty, seeds = random.normal(size=60), random.normal(0, 0.25, 3)
        runs = [ratio(0.5 + difficulty + seed + random.normal(size=60)) for seed in seeds]
        values = tuple(float(run.values[:, 0].mean()) for run in runs)
        (cell,) = summarise(over_seeds(values))
        cell = replace(cell, rows=resampled(runs, 200).mean(0), examples=ROWS[:60])
        inside.append(abs(cell.mean - 0.5) <= cell.half_width)
    assert 0.92 <= np.mean(inside) <= 0.995


def test_a_run_that_repeats_itself_is_one_run_judged_over_its_rows(tmp_path: Path) -> None:
    right = np.arange(200) < 160
    base = [np.arange(200) < n for n in (100, 104, 96)]
    rows = kept(tmp_path, [right] * 3) + kept(tmp_path, base, name="random", role="random")
    (cell, _), (bare, _) = summarise(rows, tmp_path), summarise(rows)
    assert cell.deterministic
    p = right.mean()
    assert cell.half_width == pytest.approx(1.97 * math.sqrt(p * (1 - p) / 200), rel=0.1)
    assert math.isnan(bare.half_width), "± 0.000 is no interval"
    assert verdict_of(rows).mark == 0
    assert verdict_of(rows, tmp_path).mark == 1
    assert math.isnan(summarise(rows[:1], tmp_path)[0].half_width), "one seed says nothing of seeds"


def test_outcomes_of_another_run_or_damaged_ones_are_not_used(tmp_path: Path) -> None:
    (row,) = kept(tmp_path, [np.arange(200) < 150])
    folder = tmp_path / row.run
    found = read_outcomes(folder, row)
    assert found is not None
    assert found.ids == ROWS
    assert read_outcomes(folder, replace(row, weights="w1")) is None, "another run's"
    assert read_outcomes(folder, replace(row, value=0.5)) is None, "they do not add up to the number"
    path_of(folder, "test").write_bytes(path_of(folder, "test").read_bytes()[:-50])
    assert read_outcomes(folder, row) is None
    path_of(folder, "test").unlink()
    assert read_outcomes(folder, row) is None


# Many comparisons ----------------------------------------------------------------------------------------------------


def slow_holm(p_values: list[float]) -> list[bool]:
    passed = [False] * len(p_values)
    for i, k in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[k] >= 0.05 / (len(p_values) - i):
            break
        passed[k] = True
    return passed


@pytest.mark.parametrize("seed", range(5))
def test_marks_are_corrected_for_all_that_is_compared(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = []
    for task in range(8):
        rows += untrained(random.normal(0.5, 0.01, 3).tolist(), task=str(task))
        rows += over_seeds(random.normal(0.5 + 0.012 * task, 0.01, 3).tolist(), task=str(task))
    found = verdicts(summarise(rows), random_of)
    p_values = [p_value(*difference(cell, verdict.other)) for cell, verdict in found.items()]
    assert [verdict.mark != 0 for verdict in found.values()] == slow_holm(p_values)
    for verdict in found.values():
        assert (abs(verdict.gain) > verdict.half_width) == (verdict.mark != 0), "the interval shown is the one used"
    alone = [verdict_of([row for row in rows if row.task == str(task)]).mark for task in range(8)]
    assert sum(map(abs, alone)) >= sum(abs(verdict.mark) for verdict in found.values())


def test_metrics_beside_the_main_one_are_a_family_of_their_own() -> None:
    close = over_seeds([0.6, 0.61, 0.62]) + untrained([0.55, 0.56, 0.57])
    many = [
        replace(row, metric=f"other {i}", main=False)
        for i in range(20)
        for row in over_seeds([0.6, 0.7, 0.5]) + untrained([0.55, 0.65, 0.5])
    ]
    assert verdict_of(close).half_width == verdict_of(close + many).half_width


def test_the_simple_baseline_is_compared_in_the_same_way() -> None:
    simple = over_seeds([0.7, 0.71, 0.72], name="raw pixels", role="simple")
    cells: list[Cell] = summarise(over_seeds([0.9, 0.91, 0.92]) + simple)
    (verdict,) = verdicts(cells, simple_of).values()
    assert (verdict.other.name, verdict.mark) == ("raw pixels", 1)
