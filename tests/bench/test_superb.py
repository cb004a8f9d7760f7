"""SUPERB's score and mean: published rows give the published means, and tasks count once."""

from __future__ import annotations

import math

import pytest
from results import over_seeds

from ssl_suite.bench.stats import summarise
from ssl_suite.bench.store import Store
from ssl_suite.bench.superb import HIGH, LOW, METRICS, PUBLISHED, figures_of, overall, published, score, superb_tables
from ssl_suite.cli import main
from ssl_suite.core.errors import UserError


def test_the_mean_of_eleven_is_that_of_table_1_of_wavlm() -> None:
    """arXiv:2110.13900 prints these beside the rows."""
    for name, printed in {"wav2vec 2.0 base": 79.0, "HuBERT base": 80.8, "WavLM large": 84.8}.items():
        assert overall(published(name)) == pytest.approx(printed, abs=0.05)


def test_the_score_is_0_at_the_low_and_1000_at_the_high_end() -> None:
    assert score(LOW) == 0
    assert score(HIGH) == pytest.approx(1000)


def test_a_task_of_two_metrics_counts_once() -> None:
    figures = LOW | {("PR", "per"): HIGH["PR", "per"], ("SF", "slot_f1"): HIGH["SF", "slot_f1"]}
    assert score(figures) == pytest.approx((1000 + 500) / 10)
    assert score({("PR", "per"): (LOW["PR", "per"] + HIGH["PR", "per"]) / 2}) == pytest.approx(500)


def test_a_mean_of_fewer_than_eleven_is_none() -> None:
    assert overall({key: value for key, value in HIGH.items() if key != ("SD", "der")}) is None


def test_own_results_stand_beside_the_quoted_ones(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "results.sqlite")
    speech = {"modality": "speech", "name": "APC", "method": "APC"}
    store.add(over_seeds([0.40, 0.42], task="PR", metric="per", direction="min", **speech))
    store.add(over_seeds([0.9, 0.9], task="digits", **speech))
    found = figures_of(summarise(store.rows(), tmp_path))
    assert found == {"APC": {("PR", "per"): pytest.approx(41.0)}}
    main(["results", str(tmp_path), "--format", "superb"])
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("41.00", "quoted", f"{score(found['APC']):.0f}"))
    assert math.isclose(score(found["APC"]), 1000 * (82.01 - 41.0) / (82.01 - 3.06))


def test_folds_of_one_task_are_averaged(tmp_path) -> None:
    store = Store(tmp_path / "results.sqlite")
    for session, value in ((1, 0.5), (2, 0.7)):
        store.add(over_seeds([value], modality="speech", task=f"ER, session {session}", run=f"er-{session}"))
    assert figures_of(summarise(store.rows(), tmp_path)) == {"SimCLR": {("ER", "accuracy"): pytest.approx(60.0)}}


def test_results_of_other_tasks_are_refused_in_a_sentence(tmp_path) -> None:
    Store(tmp_path / "results.sqlite").add(over_seeds([0.9, 0.91]))
    with pytest.raises(UserError, match=r"None of the results is of SUPERB's tasks .*bench/superb"):
        next(superb_tables(summarise(Store(tmp_path / "results.sqlite").rows(), tmp_path)))


def test_every_published_row_has_every_metric() -> None:
    assert all(published(name).keys() == METRICS.keys() for name in PUBLISHED.rows)
