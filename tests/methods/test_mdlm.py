"""MDLM: its corruption, its bound against cross-entropies written out, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, text_batch, tiny_text_encoder
from torch.nn import functional as F

from ssl_suite.core.optim import Optim
from ssl_suite.core.random import item_seed
from ssl_suite.data.text.text import Text
from ssl_suite.methods.text.masked_lm import MaskedLM
from ssl_suite.methods.text.mdlm import MDLM

SPECIAL, MASK, VOCAB = torch.arange(5), 4, 261


def method(**options: Any) -> MDLM:
    model = MDLM(tiny_text_encoder(dropout=0.0, **options))
    model.special, model.mask_id, model.vocab_size = SPECIAL, MASK, VOCAB
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def test_times_are_spread_evenly_over_the_rows_and_drawn_anew() -> None:
    model = method()
    batch = text_batch([9] * 8, seeds=[item_seed(0, 0, i) for i in range(8)])
    times = model.times(batch)
    gaps = times.sort().values.diff()
    torch.testing.assert_close(gaps, torch.full((7,), (1 - 1e-3) / 8))
    assert (times >= 1e-3).all()
    assert (times <= 1).all()
    assert not torch.allclose(times, model.times(replace(batch, seed=batch.seed + 1)))


def test_each_row_hides_its_share_of_ordinary_tokens_and_replaces_all_of_them_by_the_mask() -> None:
    model = method()
    batch = text_batch([1500] * 16, seeds=[item_seed(0, 0, i) for i in range(16)])
    batch.ids[:, 0] = 2
    corrupted, chosen = model.corrupt(batch)
    share, t = chosen[:, 1:].float().mean(1), model.times(batch)
    assert ((share - t).abs() < 5 * (t * (1 - t) / 1499).sqrt() + 1e-3).all()
    assert not chosen[:, 0].any()
    assert (corrupted[chosen] == MASK).all()
    assert torch.equal(corrupted[~chosen], batch.ids[~chosen])


def test_loss_and_gradients_are_cross_entropies_over_t_and_over_all_tokens() -> None:
    model, batch = method(), text_batch([30, 12, 7])
    corrupted, chosen = model.corrupt(batch)
    logits = model.head(model.encoder(replace(batch, ids=corrupted)).states[-1])
    logits = logits.index_fill(2, torch.tensor([MASK]), -torch.inf)
    each = F.cross_entropy(logits.flatten(0, 1), batch.ids.flatten(), reduction="none").view(chosen.shape)
    wanted = sum(each[row, i] / model.times(batch)[row] for row, i in chosen.nonzero().tolist()) / (30 + 12 + 7)
    out = model.step(batch)
    torch.testing.assert_close(out.total(), wanted)
    weights = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad(out.total(), weights, allow_unused=True)
    theirs = torch.autograd.grad(wanted, weights, allow_unused=True)  # type: ignore[arg-type]
    for a, b in zip(ours, theirs, strict=True):
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert out.terms["loss"].count == model.counts(batch)["loss"] == 30 + 12 + 7


def test_the_bound_of_a_model_that_knows_nothing_is_the_logarithm_of_the_words() -> None:
    model = method()
    for p in model.head.parameters():
        torch.nn.init.zeros_(p)
    rows = 256
    batch = text_batch([64] * rows, seeds=[item_seed(1, 0, i) for i in range(rows)])
    with torch.no_grad():
        bound = model.step(batch).total()
    assert float(bound) == pytest.approx(math.log(270 - 1), rel=0.05)  # all rows of the embedding but [MASK]'s


def test_it_learns(text_file: str, tmp_path: Path) -> None:
    pl.seed_everything(0)
    data = Text(text_file, tokenizer="byte", max_length=64, batch_size=8)
    model = MDLM(tiny_text_encoder(dim=32, positions="rotary", dropout=0.0), optim=Optim(lr=1e-2))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=60,
        inference_mode=False,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        **QUIET,
    )
    (before,) = trainer.validate(model, data, verbose=False)
    trainer.fit(model, data)
    (after,) = trainer.validate(model, data, verbose=False)
    assert after["val/loss"] < before["val/loss"] - 1
    assert after["val/perplexity"] == pytest.approx(math.exp(after["val/loss"]), rel=1e-4)


def test_flops_are_of_half_the_tokens() -> None:
    model, masked = MDLM(tiny_text_encoder()), MaskedLM(tiny_text_encoder(), rate=0.5)
    assert model.forward_flops(64) == pytest.approx(masked.forward_flops(64), rel=1e-2)
