"""Recipes for proteins, DNA and melodies: each learns from a tiny tree in its layout and is judged as published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_recipes import CONFIGS, QUICK
from tiny import tiny_text_encoder

from ssl_suite.bench.store import Store
from ssl_suite.cli import main
from ssl_suite.core.folder import save_encoder
from ssl_suite.encoders.tokenizer import train_tokenizer

ACIDS = "ACDEFGHIKLMNPQRSTVWY"
SIZES = {"train": 24, "valid": 6, "test": 6}


def stability(folder: Path) -> str:
    for split, size in SIZES.items():
        rows = [{"primary": ACIDS[i % 15 : i % 15 + 5], "stability_score": [i / 10]} for i in range(size)]
        (folder / f"stability_{split}.json").write_text(json.dumps(rows))
    return f"tape/stability:{folder}"


def localization(folder: Path) -> str:
    titles = [f">P{i} {('Nucleus-S', 'Plastid-U')[i % 2]}{' test' * (i > 30)}\n{ACIDS[i % 15 :]}\n" for i in range(36)]
    (folder / "deeploc_data.fasta").write_text("".join(titles))
    return f"deeploc:{folder}"


def table(folder: Path, letters: str) -> str:
    for split, size in SIZES.items():
        rows = [{"text": letters[i % 15 : i % 15 + 5], "label": "ab"[i % 2]} for i in range(size)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def peptides(folder: Path) -> str:
    return table(folder, ACIDS)


def composers(folder: Path) -> str:
    return table(folder, "abcdefghijklmnopqrstuvwxy")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    words = " ".join(a + b for a in "klmnprstv" for b in ("en", "at", "or", "is"))
    encoder = tiny_text_encoder(layers=1, vocab_size=400)
    encoder.tokenizer = train_tokenizer([words] * 30, "wordpiece", 400)
    return str(save_encoder(encoder, tmp_path_factory.mktemp("words") / "encoder"))


@pytest.mark.parametrize(
    ("make", "metric"),
    [(stability, "spearman"), (localization, "accuracy"), (peptides, "accuracy"), (composers, "accuracy")],
)
def test_recipe_learns_and_reports_the_published_metric(make, metric, encoder: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "data").mkdir()
    recipe = ["fit", "-c", str(CONFIGS / f"text/{make.__name__}.yaml"), *QUICK, "--test_after=true"]
    options = [f"--model.encoder={encoder}", f"--data.source={make(tmp_path / 'data')}", f"--out={tmp_path / 'run'}"]
    assert main([*recipe, *options]) == 0
    (row,) = (row for row in Store(tmp_path / "run/results.sqlite").rows() if row.main)
    assert (row.metric, row.split) == (metric, "test")
