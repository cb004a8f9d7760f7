"""A benchmark without encoders of its own judges those it is given, beside random weights and the simple baseline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ssl_suite.bench.store import Store
from ssl_suite.cli import main

BENCH = """\
name: small
seeds: [0, 1]
set: {trainer.accelerator: cpu, trainer.max_epochs: 1, data.batch_size: 16}
tasks:
  sentences:
    modality: text
    config: [configs/text/classify.yaml]
    set: {data.max_length: 32, trainer.check_val_every_n_epoch: 1, model.mode: finetune}
    simple: {model.encoder: BagOfWords, model.encoder.vocab_size: 400, data.vocab_size: 400}
  other: {modality: text, config: [configs/text/classify.yaml]}
"""


def test_given_encoders_are_judged_where_they_are_said_to_be(
    pretrained: dict[str, Path], sources: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(BENCH)
    options = ["--encoders", str(pretrained["text"] / "encoder"), "--tasks", "sentences"]
    data = ["--set", f"data.source={sources['text']}"]
    assert main(["bench", "-c", str(path), *options, *data, "--out", str(tmp_path / "out")]) == 0
    rows = Store(tmp_path / "out/results.sqlite").rows(metric="accuracy")
    assert {(row.method, row.role) for row in rows} == {
        ("text", "ssl"), ("from scratch", "random"), ("bag of words", "simple")
    }  # fmt: skip
    assert {(row.seed, row.task, row.split) for row in rows} == {(s, "sentences", "test") for s in (0, 1)}
    assert "the median [least, greatest]" in (tmp_path / "out/report.html").read_text()


def test_what_a_benchmark_lacks_is_said(fails: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(BENCH)
    assert "has no encoders of its own; name some: --encoders" in fails("bench", "-c", str(path))
    assert "--set wants NAME=VALUE, not 'x'" in fails("bench", "-c", str(path), "--set", "x")
