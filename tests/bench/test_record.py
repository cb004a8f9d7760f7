"""What of a run becomes a result, from the command line: real figures only, of the weights that were chosen."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ssl_suite.bench.store import Result, Store
from ssl_suite.cli import main

BASE = [
    "--model=Finetune", "--model.task=Classify", "--model.encoder=BagOfWords", "--model.encoder.vocab_size=300",
    "--data=Text", "--data.vocab_size=300", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false", "--model.mode=finetune",
]  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Sentences whose label is their first word, and a test split like the validation split."""
    folder = tmp_path / "data"
    folder.mkdir()
    for seed, (split, n) in enumerate((("train", 48), ("validation", 32), ("test", 32))):
        random = np.random.default_rng(seed)
        labels = random.integers(0, 2, n)
        texts = [f"{('bad', 'good')[label]} {' '.join(random.choice(list('abcdef'), 4))}" for label in labels]
        pq.write_table(pa.table({"text": texts, "label": labels}), folder / f"{split}.parquet")
    return folder


@pytest.fixture
def fit(source: Path, tmp_path: Path) -> Callable[..., Path]:
    """Trains a bag of words and tests it; returns the run folder."""

    def run(name: str, *more: str, code: int = 0) -> Path:
        options = [*BASE, "--data.batch_size=16", f"--data.source={source}", f"--out={tmp_path / name}"]
        assert main(["fit", *options, "--test_after=true", f"--results={tmp_path / 'results.sqlite'}", *more]) == code
        return tmp_path / name

    return run


@pytest.mark.parametrize("option", [
    "fast_dev_run=true", "limit_test_batches=0.5", "limit_train_batches=0.5", "limit_val_batches=0.5",
])  # fmt: skip
def test_a_trial_replaces_no_result(option: str, fit: Callable[..., Path], tmp_path: Path) -> None:
    fit("run", "--trainer.max_epochs=2")
    before = Store(tmp_path / "results.sqlite").rows()
    assert {row.metric for row in before} == {"accuracy", "macro_f1"}
    with pytest.warns(UserWarning, match="No result was recorded"):
        fit("run", "--overwrite=true", "--trainer.max_epochs=2", f"--trainer.{option}")
    assert Store(tmp_path / "results.sqlite").rows() == before


@pytest.fixture
def score(source: Path, tmp_path: Path) -> Callable[[Path, str], list[Result]]:
    """Tests a checkpoint; returns the main results of the file it goes to."""

    def run(checkpoint: Path, results: str) -> list[Result]:
        options = [*BASE, f"--data.source={source}", f"--ckpt_path={checkpoint}"]
        assert main(["test", *options, f"--out={tmp_path / 'tested'}", f"--results={tmp_path / results}"]) == 0
        return Store(tmp_path / results).rows(main=True)

    return run


def test_two_checkpoints_give_two_results_and_an_untrained_one_none(
    fit: Callable[..., Path], score: Callable[[Path, str], list[Result]], tmp_path: Path
) -> None:
    checkpoints = [fit(str(n), f"--trainer.max_epochs={n}") / "checkpoints/last.ckpt" for n in (1, 2)]
    for checkpoint in checkpoints:
        rows = score(checkpoint, "tested.sqlite")
    assert len({row.checkpoint for row in rows}) == len(rows) == 2
    untrained = torch.load(checkpoints[0], weights_only=True) | {"global_step": 0}
    torch.save(untrained, tmp_path / "untrained.ckpt")
    assert score(tmp_path / "untrained.ckpt", "tested.sqlite") == rows


def test_test_after_scores_the_weights_that_validation_chose(
    fit: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    """Training on inverted labels gets worse and worse; the test split is the validation split, to see which it was."""
    table = pq.read_table(source / "train.parquet")
    inverted = pa.array([1 - label for label in table["label"].to_pylist()])
    pq.write_table(table.set_column(1, "label", inverted), source / "train.parquet")
    pq.write_table(pq.read_table(source / "validation.parquet"), source / "test.parquet")
    run = fit("run", "--trainer.max_epochs=8", "--model.optim.lr=2e-2")
    with (run / "metrics.csv").open() as file:
        curve = [float(row["val/accuracy"]) for row in csv.DictReader(file) if row.get("val/accuracy")]
    (row,) = Store(tmp_path / "results.sqlite").rows(main=True)
    assert max(curve) > curve[-1], curve
    assert row.value == row.validation == pytest.approx(max(curve))


def test_without_validation_the_row_says_so(fit: Callable[..., Path], tmp_path: Path) -> None:
    fit("run", "--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=5")
    (row,) = Store(tmp_path / "results.sqlite").rows(main=True)
    assert math.isnan(row.validation)
    assert row.chosen_on == 0


def test_few_labels_to_learn_from_do_not_hide_those_that_chose_the_weights(
    fit: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("run", "--trainer.max_epochs=2", "--data.labels=12")
    (row,) = Store(tmp_path / "results.sqlite").rows(main=True)
    assert (row.labels, row.chosen_on) == (12, 32)
    assert main(["results", str(tmp_path)]) == 0
    assert "12 labels, and 32 to choose weights" in " ".join(capsys.readouterr().out.split())
    assert main(["report", str(tmp_path)]) == 0
    assert "12 labels, 32 more to choose weights" in (tmp_path / "report.html").read_text(encoding="utf-8")
