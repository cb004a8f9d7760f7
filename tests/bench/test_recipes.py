"""The benchmarks under configs/bench: each is read, and what it names is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl_suite.bench.runner import load_benchmark

ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted((ROOT / "configs/bench").glob("*.yaml"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_recipes_of_a_benchmark_exist_and_its_seeds_give_an_interval(path: Path) -> None:
    benchmark = load_benchmark(path)
    assert benchmark.tasks
    for entry in (*benchmark.encoders, *benchmark.tasks):
        assert all((ROOT / recipe).is_file() for recipe in entry.config), entry.name
    if any(task.run == "fit" for task in benchmark.tasks):
        assert len(set(benchmark.seeds)) >= 3
