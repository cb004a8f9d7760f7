"""MultiTokenLM: every head against cross-entropy written out, no look across documents, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, text_batch, tiny_text_encoder
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.errors import UserError
from ssl_suite.core.load import load_encoder
from ssl_suite.core.optim import Optim
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.experts import Experts
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.multi_token import MultiTokenLM

END = 3


def method(ahead: int = 3, **options: Any) -> MultiTokenLM:
    model = MultiTokenLM(tiny_text_encoder(causal=True, dropout=0.0, **options), ahead)
    model.end_id = END
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def with_ends() -> TextBatch:
    batch = text_batch([14, 9])
    batch.ids[0, 5] = batch.ids[0, 13] = batch.ids[1, 8] = END
    return batch


@pytest.mark.parametrize("packed", [False, True])
def test_each_heads_loss_and_gradients_equal_cross_entropy(packed: bool) -> None:
    model, batch = method(), with_ends()
    document = torch.cat([torch.zeros(2, 1).long(), (batch.ids == END).cumsum(1)[:, :-1]], 1)
    batch = replace(batch, documents=document if packed else None)
    trunk, words = model.encoder.trunk, model.encoder.tokens.weight
    seen = torch.ones(14, 14).bool().tril() & (
        document[:, :, None] == document[:, None] if packed else torch.tensor(True)
    )
    seen = (seen & batch.mask[:, None] | torch.eye(14).bool()).expand(2, 14, 14)[:, None]
    states = trunk(model.encoder.embed(batch).values, batch.mask, documents=batch.documents)
    outputs = [trunk.norm(block(states[-2], seen)) for block in (trunk.blocks[-1], *model.further)]
    wanted = {}
    for k, (name, output) in enumerate(zip(model.names, outputs, strict=True), 1):
        wanted[name] = torch.stack([
            F.cross_entropy(output[b, t] @ words.T, batch.ids[b, t + k])
            for b in range(2)
            for t in range(14 - k)
            if batch.mask[b, t + k] and document[b, t] == document[b, t + k]
        ])  # fmt: skip
    out = model.step(batch)
    assert list(out.terms) == ["token_loss", "token_2_loss", "token_3_loss"]
    for name, term in out.terms.items():
        assert term.count == len(wanted[name]) == model.counts(batch)[name]
        torch.testing.assert_close(term.mean, wanted[name].mean())
    weights = list(model.parameters())
    ours = torch.autograd.grad(out.total(), weights, allow_unused=True)
    theirs = torch.autograd.grad(sum(w.mean() for w in wanted.values()), weights, allow_unused=True)  # type: ignore[arg-type]
    for a, b in zip(ours, theirs, strict=True):
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_first_head_is_the_causal_language_model() -> None:
    model, batch = method(), with_ends()
    plain = CausalLM(model.encoder)
    plain.end_id = END
    torch.testing.assert_close(model.step(batch).terms["token_loss"].mean, plain.step(batch).total())


def test_no_head_sees_a_later_token() -> None:
    model, batch = method(), text_batch([12])
    changed = replace(batch, ids=batch.ids.clone())
    changed.ids[:, 7:] = (batch.ids[:, 7:] + 1) % 200 + 5
    trunk = model.encoder.trunk
    found = []
    for one in (batch, changed):
        below = model.encoder(one).states[-2]
        found.append([head(below, None)[:, :7] for head in model.further])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    assert len(trunk.blocks) == 2


def test_the_flops_of_its_heads_are_counted() -> None:
    model, plain = method(ahead=3), CausalLM(tiny_text_encoder(causal=True))
    one_block = method(ahead=2).forward_flops(32) - plain.forward_flops(32)
    assert model.forward_flops(32) - plain.forward_flops(32) == pytest.approx(2 * one_block, rel=0.02)


def test_encoders_whose_last_block_is_no_head_are_refused() -> None:
    for options in ({"layers": 0}, {"shared": True}):
        with pytest.raises(UserError, match="its last one is a head"):
            method(**options)  # type: ignore[arg-type]


def test_it_learns_and_its_encoder_and_heads_go_on_from_its_folder(text_file: str, tmp_path: Path) -> None:
    pl.seed_everything(0)
    data = Text(text_file, tokenizer="byte", max_length=64, batch_size=8)
    optim = Optim(lr=1e-2, warmup_ratio=0.1)
    encoder = tiny_text_encoder(dim=32, causal=True, positions="rotary", dropout=0.0)
    model = MultiTokenLM(encoder, 2, optim)
    trainer = pl.Trainer(accelerator="cpu", max_steps=60, inference_mode=False, default_root_dir=tmp_path, **QUIET)
    (before,) = trainer.validate(model, data, verbose=False)
    trainer.fit(model, data)
    (after,) = trainer.validate(model, data, verbose=False)
    for name in ("token_loss", "token_2_loss"):
        assert after[f"val/{name}"] < before[f"val/{name}"] - 1
    again = MultiTokenLM(load_encoder(str(tmp_path / "encoder")), 2, optim)
    for name, tensor in again.further.state_dict().items():
        assert torch.equal(tensor, model.further.state_dict()[name])


def test_rows_shorter_than_what_is_predicted_are_refused(text_file: str, tmp_path: Path) -> None:
    data = Text(text_file, tokenizer="byte", max_length=16, batch_size=4)
    trainer = pl.Trainer(accelerator="cpu", max_steps=1, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(UserError, match=r"ahead is 16, but rows have 16 tokens at most; lower it\."):
        trainer.fit(MultiTokenLM(tiny_text_encoder(causal=True, vocab_size=261), ahead=16), data)


def test_further_heads_are_dense_beside_experts() -> None:
    model = method(experts=3, experts_every=1)
    assert not any(isinstance(m, Experts) for m in model.further.modules())
    assert isinstance(model.encoder.trunk.blocks[-1].feed_forward, Experts)
