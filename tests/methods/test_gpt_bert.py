"""GPTBERT against a loop over rows on two encoders of the same weights, one of them causal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, text_batch, tiny_text_encoder
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.errors import UserError
from ssl_suite.core.load import load_encoder
from ssl_suite.core.optim import Optim
from ssl_suite.core.random import item_seed
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.methods.text.gpt_bert import GPTBERT

END = 3


def method(causal: float = 0.4, **options: Any) -> GPTBERT:
    model = GPTBERT(tiny_text_encoder(dropout=0.0, **options), causal, rate=0.3)
    model.special, model.mask_id, model.vocab_size, model.end_id = torch.arange(5), 4, 261, END
    model.word_starts = torch.arange(270) % 3 > 0
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def batch_of(documents: bool = False) -> TextBatch:
    batch = text_batch([14, 9, 14, 11, 12])
    batch.ids[:, 0] = 2
    batch.ids[0, 5] = batch.ids[2, 7] = batch.ids[3, 4] = END
    ended = (batch.ids == END).cumsum(1) - (batch.ids == END).long()
    return replace(batch, documents=ended) if documents else batch


def row_by_row(model: GPTBERT, batch: TextBatch, causal: list[int], masked: list[int]) -> dict[str, Tensor]:
    """The mean cross-entropies of the rows that are read one way and the other."""
    left = TextEncoder(**{**model.encoder.config, "causal": True})
    for name, p in model.encoder.named_parameters():  # the same weights, whose gradients add up
        owner, _, leaf = name.rpartition(".")
        setattr(left.get_submodule(owner), leaf, p)
    corrupted, chosen = model.corrupt(batch)
    found: dict[str, list[Tensor]] = {"masked_loss": [], "causal_loss": []}
    for name, encoder, ids, rows in (
        ("masked_loss", model.encoder, corrupted, masked),
        ("causal_loss", left, batch.ids, causal),
    ):
        for b in rows:
            n = int(batch.mask[b].sum())
            documents = None if batch.documents is None else batch.documents[b : b + 1, :n]
            row = replace(
                batch, ids=ids[b : b + 1, :n], mask=batch.mask[b : b + 1, :n], documents=documents, dense=True
            )
            logits = model.head(encoder(row).states[-1][0])
            for t in range(n - 1):
                wanted = chosen[b, t + 1] if name == "masked_loss" else batch.ids[b, t] != END
                if wanted:
                    found[name].append(F.cross_entropy(logits[t], batch.ids[b, t + 1]))
    return {name: torch.stack(each).mean() for name, each in found.items()}


@pytest.mark.parametrize("documents", [False, True])
def test_losses_and_gradients_equal_those_of_single_rows(documents: bool) -> None:
    model, batch = method(), batch_of(documents)
    rows = model.causal_rows(batch)
    assert int(rows.sum()) == 2
    wanted = row_by_row(model, batch, rows.nonzero()[:, 0].tolist(), (~rows).nonzero()[:, 0].tolist())
    out = model.step(batch)
    for name, term in out.terms.items():
        torch.testing.assert_close(term.mean, wanted[name])
        assert term.count == model.counts(batch)[name]
    total = 0.6 * wanted["masked_loss"] + 0.4 * wanted["causal_loss"]
    torch.testing.assert_close(out.total(), total)
    weights = list(model.parameters())
    ours = torch.autograd.grad(out.total(), weights, allow_unused=True)
    theirs = torch.autograd.grad(total, weights, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_validation_reads_every_row_both_ways() -> None:
    model, batch = method().eval(), batch_of()
    everyone = list(range(len(batch)))
    wanted = row_by_row(model, batch, everyone, everyone)
    terms = model.step(batch).terms
    for name, term in terms.items():
        torch.testing.assert_close(term.mean, wanted[name])


@pytest.mark.parametrize(("share", "rows"), [(0.0, 0), (1e-3, 1), (1 / 16, 2), (0.5, 16), (0.999, 31), (1.0, 32)])
def test_so_many_rows_are_causal_and_others_in_another_epoch(share: float, rows: int) -> None:
    model = method(share)
    first, second = (text_batch([4] * 32, seeds=[item_seed(0, e, i) for i in range(32)]) for e in (0, 1))
    assert [int(model.causal_rows(b).sum()) for b in (first, second)] == [rows, rows]
    if 0 < rows < 32:
        assert not torch.equal(model.causal_rows(first), model.causal_rows(second))


def test_no_state_of_a_causal_row_sees_a_later_token() -> None:
    model, batch = method(positions="rotary").eval(), text_batch([12, 12])
    changed = replace(batch, ids=batch.ids.clone())
    changed.ids[:, 7:] = (batch.ids[:, 7:] + 1) % 200 + 5
    at = torch.arange(24) // 12, torch.arange(24) % 12
    rows = torch.tensor([True, False])
    one, other = (model.encoder.output_at(b, at, None, rows).view(2, 12, -1) for b in (batch, changed))
    torch.testing.assert_close(one[0, :7], other[0, :7])
    assert (one[1, :7] - other[1, :7]).abs().max() > 1e-3


def test_encoders_that_cannot_be_read_from_the_left_are_refused() -> None:
    with pytest.raises(UserError, match="attention: full"):
        method(attention="local", window=4)
    with pytest.raises(UserError, match="causal: false"):
        GPTBERT(tiny_text_encoder(causal=True))
    with pytest.raises(UserError, match="causal"):
        GPTBERT(tiny_text_encoder(), causal=1.5)


def test_it_learns_both_and_goes_on_from_its_folder(text_file: str, tmp_path: Path) -> None:
    pl.seed_everything(0)
    data = Text(text_file, tokenizer="byte", max_length=64, batch_size=8)
    encoder = tiny_text_encoder(dim=32, positions="rotary", dropout=0.0)
    model = GPTBERT(encoder, 0.25, optim=Optim(lr=1e-2, warmup_ratio=0.1))
    trainer = pl.Trainer(accelerator="cpu", max_steps=60, inference_mode=False, default_root_dir=tmp_path, **QUIET)
    (before,) = trainer.validate(model, data, verbose=False)
    trainer.fit(model, data)
    (after,) = trainer.validate(model, data, verbose=False)
    for name in ("masked_loss", "causal_loss"):
        assert after[f"val/{name}"] < before[f"val/{name}"] - 1
    wanted = 0.75 * after["val/masked_loss"] + 0.25 * after["val/causal_loss"]
    assert after["val/loss"] == pytest.approx(wanted, rel=1e-5)
    again = GPTBERT(load_encoder(str(tmp_path / "encoder")))
    assert torch.equal(again.head.dense.weight, model.head.dense.weight)
