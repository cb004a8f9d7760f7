"""Encoders that are judged on some tasks only, or with options of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import tiny_text_encoder

from ssl_suite.bench.benchmark import jobs, load_benchmark, select
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    both: dict[str, Any] = {"modality": "text", "source": "somewhere"}
    own = both | {"tasks": ["dna"], "judged": {"data.symbols": None}, "schemes": []}
    task = {"modality": "text", "config": ["t.yaml"], "set": {"data.symbols": "ACGT"}, "schemes": ["reemb"]}
    table = {"encoders": {"BERT": both, "letters": own}, "tasks": {"dna": task, "music": task}}
    path = tmp_path / "bench.yaml"
    path.write_text(yaml.safe_dump({"name": "b", "seeds": [0], **table}))
    for name in ("BERT", "letters"):
        save_encoder(tiny_text_encoder(), tmp_path / "pretrain" / name / "encoder")
    return path


def chosen(path: Path, only: list[str] | None = None, tasks: list[str] | None = None) -> Any:
    return select(load_benchmark(path), path, only, None, [], {"trainer.max_epochs": 2}, tasks)


def test_an_encoder_is_judged_where_it_says_and_as_it_says(bench: Path) -> None:
    found = [
        (job.task.name, job.label, job.task.set["data.symbols"], job.task.set["trainer.max_epochs"])
        for job in jobs(chosen(bench), bench.parent)
    ]
    assert found == [
        ("dna", "random-BERT", "ACGT", 2),
        ("dna", "BERT reemb", "ACGT", 2),
        ("dna", "BERT", "ACGT", 2),
        ("dna", "random-letters", None, 2),  # of BERT's shape, but judged in another way
        ("dna", "letters", None, 2),
        ("music", "random-BERT", "ACGT", 2),
        ("music", "BERT reemb", "ACGT", 2),
        ("music", "BERT", "ACGT", 2),
    ]


def test_what_is_judged_on_nothing_is_left_out(bench: Path) -> None:
    assert [e.name for e in chosen(bench, tasks=["music"]).encoders] == ["BERT"]
    assert [t.name for t in chosen(bench, only=["letters"]).tasks] == ["dna"]


def test_a_task_that_is_none_is_named(bench: Path) -> None:
    bench.write_text(bench.read_text().replace("- dna", "- dnaa"))
    with pytest.raises(UserError, match=r"letters is judged on 'dnaa', which is no task. Did you mean dna\?"):
        chosen(bench)
