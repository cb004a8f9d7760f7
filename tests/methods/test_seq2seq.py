"""Seq2Seq on text: the rows it gets, its loss over batches and ranks, that it learns, and what others do with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, tiny_text_encoder
from torch.nn import functional as F

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.load import load_encoder
from ssl_suite.core.optim import Optim
from ssl_suite.core.seq2seq import Seq2SeqBatch
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.encoder_decoder import EncoderDecoder
from ssl_suite.methods.text.denoise import SENTINELS, Denoise
from ssl_suite.methods.text.seq2seq import Seq2Seq

VOCAB = 261 + len(SENTINELS)


def tiny(**options: Any) -> EncoderDecoder:
    return EncoderDecoder(VOCAB, **{"dim": 16, "layers": 1, "heads": 2, "dropout": 0.0, **options})


def served(source: str, how: Denoise, **options: Any) -> Text:
    data = Text(source, tokenizer="byte", **{"max_length": 48, "batch_size": 4, **options})
    data.serve(Request(pretrains=True, corruption=how, vocab_size=VOCAB, start_id=0))
    return data


def batch_of(data: Text, indices: range, epoch_seed: int = 0) -> Seq2SeqBatch:
    batch = data.collate([data.read("train", i, epoch_seed + i) for i in indices])
    assert isinstance(batch, Seq2SeqBatch)
    return batch


def test_blocks_of_one_length_give_batches_without_padding(text_file: str) -> None:
    data = served(text_file, Denoise())
    batch = batch_of(data, range(4))
    assert batch.dense
    assert batch.decoder.dense
    n = round(0.15 * 47)
    spans = round(n / 3)
    assert batch.ids.shape == (4, 47 - n + spans + 1)
    assert batch.wanted.shape[1] == n + spans + 1
    assert (batch.decoder.ids[:, 0] == 0).all()
    assert torch.equal(batch.decoder.ids[:, 1:], batch.wanted[:, :-1])
    assert data.tokenizer is not None
    assert data.tokenizer.token_to_id("<extra_id_0>") == VOCAB - 1


def test_documents_kept_apart_are_corrupted_each_by_itself_and_packed(text_file: str) -> None:
    data = served(text_file, Denoise("deshuffle"), separate=True, max_length=120)
    batch = batch_of(data, range(3))
    assert batch.documents is not None
    assert batch.decoder.documents is not None
    assert int(batch.documents.max()) > 0
    for row in range(3):
        for document in range(int(batch.documents[row].max()) + 1):
            read = batch.ids[row][(batch.documents[row] == document) & batch.mask[row]]
            said = batch.wanted[row][(batch.decoder.documents[row] == document) & batch.decoder.mask[row]]
            assert read.sort().values.tolist() == said.sort().values.tolist()
            assert read[-1] == said[-1] == 3


def test_rows_of_unequal_length_are_padded_and_padding_costs_nothing(text_file: str) -> None:
    data = served(text_file, Denoise("bart"), pack=False)
    model = Seq2Seq(tiny(shape="bart", max_length=60), Denoise("bart"))
    together = batch_of(data, range(5))
    assert not together.dense
    alone = [batch_of(data, range(i, i + 1)) for i in range(5)]
    whole = model.step(together).terms["loss"]
    sums = sum(model.step(b).terms["loss"].sum.item() for b in alone)
    assert whole.sum.item() == pytest.approx(sums, rel=1e-4)
    assert float(model.counts(together)["loss"]) == whole.count == sum(int((b.wanted != IGNORE).sum()) for b in alone)


def test_the_loss_is_the_cross_entropy_of_what_is_wanted(text_file: str) -> None:
    data = served(text_file, Denoise("drop_tokens", 0.3), pack=False)
    model, batch = Seq2Seq(tiny(), Denoise("drop_tokens")), batch_of(data, range(4))
    logits = model.encoder.logits(model.encoder.decode(batch, model.encoder(batch)))
    wanted = F.cross_entropy(logits.flatten(0, 1), batch.wanted.flatten(), ignore_index=IGNORE)
    own = model.step(batch).total()
    torch.testing.assert_close(own, wanted)
    given = torch.autograd.grad(own, list(model.encoder.parameters()), retain_graph=True)
    expected = torch.autograd.grad(wanted, list(model.encoder.parameters()))
    for a, b in zip(given, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_every_epoch_draws_anew_and_validation_never_does(text_file: str) -> None:
    data = served(text_file, Denoise())
    first, second = (batch_of(data, range(2), seed) for seed in (0, 100))
    assert not torch.equal(first.ids, second.ids)
    loaders = [[b.ids for b in data.eval_dataloader("validation")] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*loaders, strict=True))


def test_it_learns_to_say_what_is_missing(tmp_path: Path) -> None:
    """A text of four sentences over and over: what is missing follows from what is left."""
    lines = [f"{a} {b} lay there." for a in ("some red", "many blue") for b in ("stones", "apples", "books")]
    rng = np.random.default_rng(0)
    path = tmp_path / "a.txt"
    path.write_text("\n".join(" ".join(lines[i] for i in rng.integers(0, 6, 8)) for _ in range(120)))
    encoder = tiny(dim=32, layers=2)
    model = Seq2Seq(encoder, Denoise(rate=0.2), Optim(lr=1e-2, weight_decay=0.0, warmup_steps=10, schedule="linear"))
    data = Text(str(path), tokenizer="byte", max_length=40, batch_size=16)
    options = QUIET | {"accelerator": "cpu", "default_root_dir": tmp_path, "limit_val_batches": 4}
    trainer = pl.Trainer(**options, max_steps=100, inference_mode=False)
    before = trainer.validate(model, data, verbose=False)[0]["val/loss"]
    trainer.fit(model, data)
    after = trainer.validate(model, data, verbose=False)[0]["val/loss"]
    assert after < 0.4 * before
    assert after < 2.2  # to know how often each letter is wanted alone gives 2.9
    kept = load_encoder(tmp_path / "encoder")
    assert isinstance(kept, EncoderDecoder)
    assert kept.tokenizer.token_to_id("<extra_id_0>") == VOCAB - 1


def test_encoders_that_say_nothing_and_small_vocabularies_are_refused(text_file: str) -> None:
    with pytest.raises(UserError, match="Seq2Seq needs an EncoderDecoder"):
        Seq2Seq(tiny_text_encoder())
    data = Text(text_file, tokenizer="byte", max_length=48, batch_size=4)
    with pytest.raises(UserError, match="361 entries, the encoder only 300"):
        data.serve(Request(pretrains=True, corruption=Denoise(), vocab_size=300))
