"""The table for the terminal: names that tell rows apart, marks, and 80 columns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from results import RESULT, over_seeds, untrained
from rich.console import Console

from ssl_suite.bench.stats import summarise
from ssl_suite.bench.store import Result
from ssl_suite.bench.table import decimals, format_median, format_table, row_names


def printed(rows: list[Result], capsys: pytest.CaptureFixture[str], width: int = 80) -> str:
    Console(width=width).print(format_table(summarise(rows)))
    return capsys.readouterr().out


def names(rows: list[Result]) -> list[str]:
    return list(row_names(summarise(rows)).values())


def test_means_marks_and_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    rows = over_seeds([0.9, 0.91, 0.92]) + untrained([0.5, 0.51, 0.52])
    worse = over_seeds([0.4, 0.41, 0.42], name="APC", weights="w1")
    said = printed([*rows, *worse, replace(RESULT, name="[red]one seed", task="faces")], capsys)
    assert "0.910 ± 0.025 ▲" in said
    assert "0.510 ± 0.025 " in said
    assert "0.410 ± 0.025 ▼" in said
    assert "[red]one seed" in said
    assert "corrected for 2 comparisons (Holm)" in " ".join(said.split())


def test_where_nothing_is_compared_no_mark_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    said = " ".join(printed(over_seeds([0.9, 0.91, 0.92]), capsys).split())
    assert "bold: the highest mean" in said
    assert "▲" not in said
    assert "0 comparisons" not in said


def test_encoders_are_called_by_name_not_by_method(capsys: pytest.CaptureFixture[str]) -> None:
    rows = over_seeds([0.9, 0.91], name="SpanBERT", method="MaskedLM")
    said = printed(rows + over_seeds([0.8, 0.81], name="ERNIE", method="MaskedLM", weights="w1"), capsys)
    assert "SpanBERT" in said
    assert "ERNIE" in said
    assert "MaskedLM" not in said


def test_random_weights_say_whose_they_are_where_there_are_two() -> None:
    rows = over_seeds([0.8, 0.9], name="BERT") + over_seeds([0.8, 0.9], name="ELECTRA", weights="w1")
    rows += over_seeds([0.8, 0.9], name="GPT", encoder="causal", weights="w2") + untrained([0.5, 0.52])
    assert names(rows)[-1] == "random weights"
    assert names(rows + untrained([0.5, 0.51], encoder="causal", weights="random-1"))[-2:] == [
        "random weights of BERT, ELECTRA", "random weights of GPT"
    ]  # fmt: skip


def test_what_has_one_name_is_told_apart() -> None:
    rows = over_seeds([0.8, 0.9], weights="aaaaaaaa")
    assert names(rows) == ["SimCLR"]
    assert names(rows + over_seeds([0.8, 0.9], weights="bbbbbbbb")) == ["SimCLR · aaaaaa", "SimCLR · bbbbbb"]
    assert names(rows + over_seeds([0.8, 0.9], weights="aaaaaaaa", recipe="77ab99ff")) == [
        "SimCLR", "SimCLR · recipe 77ab99"
    ]  # fmt: skip


def test_an_encoder_is_one_row_over_tasks_of_different_recipes() -> None:
    assert names(over_seeds([0.8, 0.9]) + over_seeds([0.8, 0.9], task="faces", recipe="77ab")) == ["SimCLR"]


def test_a_narrow_terminal_cuts_no_name_and_no_figure(capsys: pytest.CaptureFixture[str]) -> None:
    task = "movie sentences, 4 shots"
    rows = over_seeds([0.9, 0.91, 0.92], task=task, labels=1000, name="runs/of/mine/large")
    said = printed(rows + untrained([0.5, 0.51, 0.52], task=task, labels=1000), capsys)
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 80
    for whole in ("movie", "sentences", "1000 labels", "0.910 ± 0.025", "0.910 [0.900, 0.920]"):
        assert whole in said


def test_the_median_stands_beside_the_extremes() -> None:
    (cell,) = summarise(over_seeds([0.5, 0.1, 0.6, 0.55, 0.52]))
    assert format_median(cell) == "0.520 [0.100, 0.600]"
    (cell,) = summarise(over_seeds([0.5]))
    assert format_median(cell) == ""


def test_decimals_suit_the_size() -> None:
    assert [decimals([value]) for value in (0.5, 91.2, 4321.0)] == [3, 1, 0]
