"""The aggregate over tasks against the size of the model: its numbers by hand, and its place in the report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from results import over_seeds

from ssl_suite.bench.in_context import ENCODER, aggregate, sizes
from ssl_suite.bench.report import build_report
from ssl_suite.bench.stats import summarise
from ssl_suite.bench.store import Result, Store

VALUES = {("small", 0): (0.5, 0.2), ("small", 4): (0.6, 0.2), ("large", 0): (0.5, 0.4), ("large", 4): (0.8, 0.6)}
"""Encoder and shots → accuracy in two tasks, around which two seeds lie."""
PARAMETERS = {"small": 10_000, "large": 1_000_000}


@pytest.fixture
def suite(tmp_path: Path) -> tuple[Path, list[Result]]:
    """Two encoders in two tasks; one of them in a third, which the aggregate then leaves out."""
    asked = [(*key, task, value) for key, pair in VALUES.items() for task, value in zip("ab", pair, strict=True)]
    asked.append(("large", 0, "c", 1.0))
    rows: list[Result] = []
    for name, shots, task, value in asked:
        run = f"{name}-{task}-{shots}"
        (tmp_path / run).mkdir()
        (tmp_path / run / ENCODER).write_text(json.dumps({"parameters": PARAMETERS[name]}))
        rows += over_seeds(
            [value - 0.1, value + 0.1], name=name, encoder=name, weights=name, task=f"{task}, {shots} shots",
            protocol=f"{shots}-shot@1", modality="text", run=run,
        )  # fmt: skip
    return tmp_path, rows


def test_points_are_means_over_the_tasks_all_were_asked(suite: tuple[Path, list[Result]]) -> None:
    folder, rows = suite
    points = aggregate(summarise(rows, folder), sizes(rows, folder))
    assert [(p.name, p.parameters, p.shots) for p in points] == [
        ("small", 10_000, 0), ("large", 1_000_000, 0), ("small", 10_000, 4), ("large", 1_000_000, 4),
    ]  # fmt: skip
    assert [p.accuracy for p in points] == pytest.approx([0.35, 0.45, 0.4, 0.7])
    one = 12.706 * 0.1  # Student's t at one degree of freedom times 0.2 / √2 / √2
    assert all(p.tasks == ("a", "b") and p.half_width == pytest.approx(one / math.sqrt(2), rel=1e-3) for p in points)


def test_an_encoder_of_unknown_size_has_no_place(suite: tuple[Path, list[Result]]) -> None:
    folder, rows = suite
    for path in folder.glob(f"small*/{ENCODER}"):
        path.write_text("{}")
    points = aggregate(summarise(rows, folder), sizes(rows, folder))
    assert {p.name for p in points} == {"large"}
    assert aggregate(summarise(rows, folder), {}) == []


def test_the_report_draws_a_line_a_number_of_shots(suite: tuple[Path, list[Result]]) -> None:
    folder, rows = suite
    Store(folder / "results.sqlite").add(rows)
    page = build_report(folder).read_text(encoding="utf-8")
    assert "Mean accuracy over 2 tasks against parameters: small, 0 shots 0.350; large, 0 shots 0.450" in page
    assert "4 shots</span>" in page
    assert "a, b" in page
