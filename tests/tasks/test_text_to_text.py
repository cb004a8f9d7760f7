"""TextToText and its data: what is compared and how, rows that cannot be read, and a task that is learned."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, tiny_text_encoder

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.optim import Optim
from ssl_suite.core.seq2seq import Seq2SeqBatch
from ssl_suite.data.text.sequences.text_pairs import TextPairs
from ssl_suite.encoders.encoder_decoder import EncoderDecoder
from ssl_suite.tasks.spoken import Comparison, compared
from ssl_suite.tasks.text_to_text import TextToText

SAID = [
    Comparison("the cat sat on the mat", "the cat is on the mat"),
    Comparison("a dog, a dog!", "A dog barked at another dog ."),
    Comparison("", "nothing was said"),
    Comparison("exactly this .", "exactly this."),
]


def test_exact_match_counts_rows_that_are_the_same_but_for_spaces() -> None:
    assert compared("exact_match", SAID) == 0.25


@pytest.mark.parametrize("metric", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_that_of_its_authors(metric: str) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer([metric])
    wanted = sum(scorer.score(row.true, row.said)[metric].fmeasure for row in SAID) / len(SAID)
    assert compared(metric, SAID) == pytest.approx(wanted)
    assert 0 < wanted < 1


def test_bleu_is_sacrebleus() -> None:
    pytest.importorskip("sacrebleu")
    text = pytest.importorskip("torchmetrics.functional.text")
    rows = [*SAID, Comparison("a man went to the big house by the sea", "a man walked to the big house by the sea")]
    wanted = text.sacre_bleu_score([r.said for r in rows], [[r.true] for r in rows])
    assert compared("bleu", rows) == pytest.approx(100 * float(wanted), rel=1e-4)


def table(folder: Path, rows: dict[str, list[tuple[str, str]]]) -> str:
    folder.mkdir(exist_ok=True)
    for split, pairs in rows.items():
        with (folder / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "target"), *pairs])
    return str(folder)


@pytest.fixture
def colours(tmp_path: Path) -> str:
    """What something is, and then its colour said back with its name."""
    made = [
        (f"the {thing} is {colour}", f"{colour} {thing}") for thing in "abcdefgh" for colour in ("red", "blue", "tan")
    ]
    rows = {"train": made * 8, "validation": made[::5], "test": made[::4]}
    return table(tmp_path / "colours", rows)


def encoder(**options: Any) -> EncoderDecoder:
    return EncoderDecoder(**{"vocab_size": 270, "dim": 32, "layers": 1, "heads": 2, "dropout": 0.0, **options})


def test_it_learns_to_say_what_it_should_and_keeps_its_outcomes(colours: str, tmp_path: Path) -> None:
    data = TextPairs(colours, prefix="say: ", vocab_size=90, batch_size=16)
    optim = Optim(lr=1e-2, weight_decay=0.0, warmup_steps=10, schedule="linear")
    model = TextToText(encoder(vocab_size=90), ("exact_match", "rouge1"), length=4, optim=optim)
    trainer = pl.Trainer(
        **QUIET, max_epochs=14, accelerator="cpu", default_root_dir=tmp_path, check_val_every_n_epoch=14
    )
    trainer.fit(model, data)
    found = trainer.test(model, data, verbose=False)[0]
    assert found["test/exact_match"] >= 0.8
    assert found["test/rouge1"] >= found["test/exact_match"]
    rows = model.examples("test")
    assert len(rows) == 6
    assert sum(right for _, right, _ in rows) / 6 == pytest.approx(found["test/exact_match"])


def test_prefix_and_lengths_are_as_asked(colours: str) -> None:
    data = TextPairs(colours, prefix="say: ", tokenizer="byte", max_length=12, target_length=6, labels=6)
    with pytest.warns(UserWarning, match="inputs are longer than 12"):
        data.serve(Request(vocab_size=270, start_id=0))
    assert data.size("train") == data.labels_used == 6
    batch = data.collate([data.read("train", i, 0) for i in range(3)])
    assert isinstance(batch, Seq2SeqBatch)
    assert batch.ids.shape[1] == 12
    assert batch.wanted.shape[1] <= 6
    assert (batch.ids[:, -1] == 3).all()
    assert data.tokenizer is not None
    assert data.tokenizer.decode(batch.ids[0].tolist()).startswith("say: the")
    assert all(true.split()[1] in "abcdefgh" for true in batch.references)


def test_a_tokenizer_that_cannot_say_the_targets_is_reported(tmp_path: Path) -> None:
    source = table(tmp_path / "capitals", {"train": [("a b", "Yes"), ("b a", "no")] * 6})
    data = TextPairs(source, vocab_size=60)
    with pytest.warns(UserWarning, match="cannot say 1 of 2 different targets"):
        data.serve(Request(vocab_size=60))


def test_a_test_split_may_keep_its_targets_to_itself_and_is_answered_by_predict(tmp_path: Path) -> None:
    source = table(
        tmp_path / "hidden", {"train": [("a b", "yes"), ("b a", "no")] * 10, "test": [("a a", ""), ("b", "")]}
    )
    data = TextPairs(source, tokenizer="byte", batch_size=2)
    model = TextToText(encoder(), length=3)
    trainer = pl.Trainer(**QUIET, accelerator="cpu", default_root_dir=tmp_path)
    answers = trainer.predict(model, data)
    assert answers is not None
    assert [type(answer) for answer in answers[0]] == [str, str]
    with pytest.raises(UserError, match=r"test split of .* has no targets"):
        trainer.test(TextToText(encoder(), length=3), data)


def test_rows_without_anything_to_say_are_named(tmp_path: Path) -> None:
    source = table(tmp_path / "gaps", {"train": [("a b", "yes"), ("b a", "")] * 6})
    with pytest.raises(UserError, match=r"train\.csv.*'target' holds .*nothing to say"):
        TextPairs(source, tokenizer="byte").serve(Request())
    with pytest.raises(UserError, match="TextToText needs an encoder"):
        TextToText(tiny_text_encoder())
    with pytest.raises(UserError, match="metrics is empty"):
        TextToText(encoder(), ())


def test_padding_and_company_leave_loss_and_answers_alone(colours: str) -> None:
    torch.manual_seed(0)
    data = TextPairs(colours, tokenizer="byte")
    data.serve(Request(vocab_size=270, start_id=0))
    model = TextToText(encoder(), length=5)
    model.encoder.tokenizer = data.tokenizer
    items = [data.read("train", i, 0) for i in (0, 1, 5)]
    together = data.collate(items)
    alone = [data.collate([item]) for item in items]
    assert isinstance(together, Seq2SeqBatch)
    assert model.said(together) == [model.said(one)[0] for one in alone]  # type: ignore[arg-type]
    losses = [model.loss(one) for one in alone]  # type: ignore[arg-type]
    total = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
    torch.testing.assert_close(model.loss(together)[0], total)
