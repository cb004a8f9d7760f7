"""The store keeps what it is given, from several writers at once, and its statistics agree with SciPy."""

import json
import math
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from ssl_suite.bench.runner import main_metrics
from ssl_suite.bench.stats import beats, best, difference, format_median, mean_interval, random_of, summarise
from ssl_suite.bench.store import Result, Store, format_table, to_json
from ssl_suite.core.errors import UserError

RESULT = Result(
    modality="image", method="SimCLR", role="ssl", encoder="ImageEncoder", task="digits", data="samples:digits",
    split="test", metric="accuracy", direction="max", value=0.91, seed=0, labels=1000, protocol="probe@1",
    config_hash="3f9a", seconds=12.5, run="image/simclr-0", command="ssl-suite fit -c x.yaml",
    created="2026-03-02T10:00:00+00:00", version="0.1.0", online=False,
)  # fmt: skip


def over_seeds(values: list[float], **other: object) -> list[Result]:
    return [replace(RESULT, value=value, seed=seed, **other) for seed, value in enumerate(values)]  # type: ignore[arg-type]


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    results = [RESULT, replace(RESULT, seed=1, online=True, method="naïve «x»")]
    Store(tmp_path / "new" / "results.sqlite").add(results)
    assert Store(tmp_path / "new" / "results.sqlite").rows() == results


def test_numpy_numbers_are_stored_as_numbers(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.sqlite")
    store.add([replace(RESULT, value=np.float32(0.5), seed=np.int64(3))])  # type: ignore[arg-type]
    assert (store.rows()[0].value, store.rows()[0].seed) == (0.5, 3)


def test_nan_and_infinity_survive(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.sqlite")
    store.add([replace(RESULT, value=math.nan), replace(RESULT, value=math.inf, seed=1)])
    assert math.isnan(store.rows()[0].value)
    assert store.rows()[1].value == math.inf


def test_the_same_key_replaces(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.sqlite")
    store.add([RESULT, replace(RESULT, seed=1)])
    newer = replace(RESULT, value=0.95, run="again", config_hash="other")
    store.add([newer])
    assert store.rows() == [newer, replace(RESULT, seed=1)]


@pytest.mark.parametrize(
    "change", [{"online": True}, {"encoder": "Other"}, {"labels": 10}, {"protocol": "probe@2"}, {"split": "validation"}]
)
def test_another_key_does_not_replace(tmp_path: Path, change: dict[str, object]) -> None:
    store = Store(tmp_path / "r.sqlite")
    store.add([RESULT, replace(RESULT, **change)])  # type: ignore[arg-type]
    assert len(store.rows()) == 2


def test_filters(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.sqlite")
    store.add([replace(RESULT, seed=seed, online=seed == 2) for seed in range(4)])
    assert [row.seed for row in store.rows(seed=[1, 3])] == [1, 3]
    assert [row.seed for row in store.rows(online=True)] == [2]
    assert store.rows(task="digits' OR 1=1 --") == []
    assert store.rows(seed=[]) == []
    with pytest.raises(UserError, match="no column 'colour'"):
        store.rows(colour="red")


def test_all_or_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.sqlite")
    with pytest.raises(ValueError, match="could not convert"):
        store.add([RESULT, replace(RESULT, seed=1, value="not a number")])  # type: ignore[arg-type]
    assert store.rows() == []


@pytest.mark.parametrize("change", [{"role": "best"}, {"direction": "up"}])
def test_a_result_has_a_known_role_and_direction(change: dict[str, str]) -> None:
    with pytest.raises(UserError, match="is"):
        replace(RESULT, **change)  # type: ignore[arg-type]


def test_other_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be looked at as if it were one. " * 20)
    with pytest.raises(UserError, match=r"notes\.txt is not a results store"):
        Store(text)
    assert text.read_text().startswith("not a database")
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE results (a)")
    with pytest.raises(UserError, match="not a results store"):
        Store(foreign)
    with pytest.raises(UserError, match="Cannot use"):
        Store(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    Store(path).add([RESULT])
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="newer ssl_suite"):
        Store(path)


def test_threads_and_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    script = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from dataclasses import replace\n"
        "from test_store import RESULT\n"
        "from ssl_suite.bench.store import Store\n"
        "for i in range(20): Store(sys.argv[1]).add([replace(RESULT, method=sys.argv[2], seed=i)])\n"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    command = [sys.executable, "-c", script, str(path)]
    processes = [subprocess.Popen([*command, f"process {i}", *folders]) for i in range(2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: Store(path).add([replace(RESULT, method="thread", seed=i)]), range(40)))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(Store(path).rows()) == 80


def test_json_has_no_nan() -> None:
    records = json.loads(to_json([replace(RESULT, value=math.nan), RESULT]))
    assert records[0]["value"] is None
    assert records[1]["value"] == 0.91
    assert records[1]["online"] is False


def test_the_terminal_table_shows_means_marks_and_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    rows = over_seeds([0.9, 0.91, 0.92]) + over_seeds([0.5, 0.51, 0.52], method="random", role="random")
    Console(width=200).print(format_table([*rows, replace(RESULT, method="[red]one seed", task="faces")]))
    printed = capsys.readouterr().out
    assert "0.910 ± 0.025 ▲" in printed
    assert "0.510 ± 0.025 " in printed
    assert "[red]one seed" in printed


def test_random_weights_of_two_encoders_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    encoders = ("TextEncoder-1a2b", "TextEncoder-causal-3c4d")
    rows = [r for e in encoders for r in over_seeds([0.5, 0.52], method="random", role="random", encoder=e)]
    Console(width=80).print(format_table(rows + over_seeds([0.8, 0.9], encoder=encoders[0])))
    printed = capsys.readouterr().out
    assert all(printed.count(encoder) == 1 for encoder in encoders)


def test_a_narrow_terminal_cuts_no_name_and_no_figure(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    rows = over_seeds([0.9, 0.91, 0.92], task="movie sentences", labels=1000)
    Console(width=80).print(format_table(rows + over_seeds([0.5, 0.51, 0.52], task="movie sentences", role="random")))
    printed = capsys.readouterr().out
    assert "…" not in printed
    for whole in ("movie sentences", "1000 labels", RESULT.method, "0.910 ± 0.025", "0.910 [0.900, 0.920]"):
        assert whole in printed


def test_the_closing_table_has_the_metric_recorded_first() -> None:
    rows = [
        replace(RESULT, task=t, metric=m) for t in ("a", "b") for m in (("cer", "wer") if t == "a" else ("wer", "cer"))
    ]
    assert [(r.task, r.metric) for r in main_metrics(rows)] == [("a", "cer"), ("b", "wer")]


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_intervals_are_those_of_scipy(count: int, confidence: float) -> None:
    values = np.random.default_rng(count).normal(0.8, 0.1, count).tolist()
    mean, half_width = mean_interval(values, confidence)
    low, high = scipy_stats.t.interval(confidence, count - 1, loc=np.mean(values), scale=scipy_stats.sem(values))
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high))


def test_the_median_stands_beside_the_extremes() -> None:
    (cell,) = summarise(over_seeds([0.5, 0.1, 0.6, 0.55, 0.52]))
    assert format_median(cell) == "0.520 [0.100, 0.600]"
    (cell,) = summarise(over_seeds([0.5]))
    assert format_median(cell) == ""


def test_one_value_has_no_interval() -> None:
    mean, half_width = mean_interval([0.5])
    assert mean == 0.5
    assert math.isnan(half_width)
    assert all(map(math.isnan, mean_interval([])))


def test_differences_are_welch_of_scipy() -> None:
    a, b = [0.91, 0.95, 0.9, 0.93], [0.6, 0.7, 0.65]
    first, second = summarise(over_seeds(a) + over_seeds(b, method="random", role="random"))
    expected = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    gain, half_width = difference(first, second)
    assert (gain - half_width, gain + half_width) == pytest.approx((expected.low, expected.high))


def test_beating_respects_the_direction_and_the_interval() -> None:
    def verdict(values: list[float], baseline: list[float], direction: str) -> bool:
        rows = over_seeds(values, direction=direction)
        return beats(*summarise(rows + over_seeds(baseline, role="random", method="random", direction=direction)))

    high, low, wide = [0.9, 0.91, 0.92], [0.5, 0.51, 0.52], [0.4, 0.9, 0.7]
    assert verdict(high, low, "max")
    assert not verdict(low, high, "max")
    assert verdict(low, high, "min")
    assert not verdict(high, low, "min")
    assert not verdict(wide, low, "max")
    assert not verdict([0.9], low, "max"), "one seed claims nothing"
    assert not verdict([0.9, 0.91, math.nan], low, "max"), "nor does a run that failed"
    assert verdict([0.9] * 3, [0.5] * 3, "max")
    assert not verdict([0.5] * 3, [0.5] * 3, "max")


def test_only_the_same_encoder_judged_alike_is_the_reference() -> None:
    rows = over_seeds([0.9, 0.91]) + over_seeds([0.5, 0.51], role="random", method="random", encoder="Other")
    rows += over_seeds([0.5, 0.51], role="random", method="random", protocol="finetune@1")
    cells = summarise(rows)
    assert random_of(cells[0], cells) is None
    cells = summarise(rows + over_seeds([0.4, 0.41], role="random", method="random"))
    reference = random_of(cells[0], cells)
    assert reference is not None
    assert reference.mean == pytest.approx(0.405)


def test_the_best_ignores_cells_with_failed_seeds() -> None:
    cells = summarise(over_seeds([0.9, math.nan]) + over_seeds([0.8, 0.8], method="BYOL"))
    winner = best(cells)
    assert winner is not None
    assert winner.method == "BYOL"
