"""MaskedLM and CausalLM: what is masked, what is predicted, and generation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, bert_mask, text_batch, tiny_text_encoder
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.lstm import LSTMEncoder
from ssl_suite.encoders.tokenizer import special_ids, token_id, train_tokenizer
from ssl_suite.methods.text.causal_lm import CausalLM, pick
from ssl_suite.methods.text.corrupt import choose_positions, ordinary_ids
from ssl_suite.methods.text.masked_lm import MaskedLM

SPECIAL, MASK, VOCAB = torch.tensor([0, 1, 2, 3, 4]), 4, 261


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = train_tokenizer(["any text"], "byte")
    assert tokenizer.get_vocab_size() == VOCAB
    assert special_ids(tokenizer) == SPECIAL.tolist()
    return tokenizer


def masked(tokenizer: Tokenizer, **options: Any) -> MaskedLM:
    model = MaskedLM(tiny_text_encoder(dropout=0.0, **options))
    model.special, model.mask_id, model.vocab_size = SPECIAL, MASK, VOCAB
    return model


def causal(tokenizer: Tokenizer, **options: Any) -> CausalLM:
    model = CausalLM(tiny_text_encoder(causal=True, dropout=0.0, **options))
    model.encoder.tokenizer, model.end_id = tokenizer, token_id(tokenizer, "end")
    for p in model.encoder.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def with_specials(lengths: list[int], seeds: list[int] | None = None) -> TextBatch:
    """[CLS] ids [SEP] and padding."""
    batch = text_batch(lengths, seeds=seeds)
    batch.ids[:, 0] = 2
    batch.ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = 3
    return batch


# Masking ---------------------------------------------------------------------------------------------------------


def test_neither_special_tokens_nor_padding_are_masked() -> None:
    batch = with_specials([40, 22, 5, 2] * 50)
    corrupted, chosen = bert_mask(batch, SPECIAL, MASK, VOCAB, 0.5)
    assert not (chosen & ~batch.mask).any()
    assert not (chosen & (batch.ids < 5)).any()
    assert torch.equal(corrupted[~chosen], batch.ids[~chosen])


@pytest.mark.parametrize("rate", [0.15, 0.3])
def test_each_row_masks_the_rounded_share_and_at_least_one(rate: float) -> None:
    allowed = torch.zeros(60, 60, dtype=torch.bool)
    for n in range(60):
        allowed[n, torch.randperm(60)[:n]] = True
    chosen = choose_positions(allowed, torch.arange(60), rate)
    assert chosen.sum(1).tolist() == [min(n, max(1, round(rate * n))) for n in range(60)]


def test_positions_are_chosen_evenly() -> None:
    allowed = torch.ones(20000, 20, dtype=torch.bool)
    seeds = torch.arange(20000) * 7919
    share = choose_positions(allowed, seeds, 0.15).float().mean(0)
    assert (share - 0.15).abs().max() < 5 * (0.15 * 0.85 / 20000) ** 0.5


def test_eighty_ten_ten() -> None:
    batch = text_batch([64] * 2000, seeds=[item_seed(0, 0, i) for i in range(2000)])
    corrupted, chosen = bert_mask(batch, SPECIAL, MASK, VOCAB, 0.15)
    old, new = batch.ids[chosen], corrupted[chosen]
    n = len(old)
    shares = {"mask": new == MASK, "same": new == old, "random": (new != MASK) & (new != old)}
    expected = {"mask": 0.8, "same": 0.1 + 0.1 / 256, "random": 0.1 * 255 / 256}
    for name, p in expected.items():
        assert abs(float(shares[name].float().mean()) - p) < 5 * (p * (1 - p) / n) ** 0.5, name
    drawn = new[shares["random"]]
    assert drawn.min() >= 5
    assert drawn.max() < VOCAB
    assert len(drawn.unique()) == VOCAB - 5


def test_random_replacements_are_even_and_skip_special_ids_anywhere() -> None:
    special = torch.tensor([7, 0, 3, 19])
    ids = ordinary_ids(torch.arange(16) / 16, special, 20)
    assert ids.tolist() == [i for i in range(20) if i not in special.tolist()]
    assert ordinary_ids(torch.tensor([1 - 2**-24]), special, 20).item() == 18


def test_masks_are_redrawn_by_epoch_and_blind_to_order_and_mates() -> None:
    def mask(indices: list[int], epoch: int, length: int = 0) -> dict[int, Tensor]:
        torch.manual_seed(0)
        all_ids = torch.randint(5, VOCAB, (10, 30))
        seeds = torch.tensor([item_seed(3, epoch, i) for i in indices])
        ids = F.pad(all_ids[indices], (0, length))
        batch = TextBatch(
            torch.tensor(indices), seeds, None, ids, torch.arange(30 + length).expand(len(indices), -1) < 30
        )
        corrupted, chosen = bert_mask(batch, SPECIAL, MASK, VOCAB, 0.15)
        return {i: torch.stack([c, k.long()])[:, :30] for i, c, k in zip(indices, corrupted, chosen, strict=True)}

    first, again, later = mask(list(range(10)), 0), mask([7, 2], 0, length=9), mask(list(range(10)), 1)
    assert all(torch.equal(again[i], first[i]) for i in (7, 2))
    assert sum(torch.equal(first[i][1], later[i][1]) for i in range(10)) <= 1


# MaskedLM ----------------------------------------------------------------------------------------------------------


def test_loss_equals_cross_entropy_over_all_logits_with_ignored_labels(tokenizer: Tokenizer) -> None:
    """As transformers' BertForMaskedLM computes it."""
    model, batch = masked(tokenizer), with_specials([30, 12, 7])
    out = model.step(batch)
    corrupted, chosen = bert_mask(batch, SPECIAL, MASK, VOCAB, 0.15)
    logits = model.head(model.encoder(replace(batch, ids=corrupted)).states[-1])
    labels = batch.ids.masked_fill(~chosen, -100)
    torch.testing.assert_close(out.total(), F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100))
    assert out.terms["loss"].count == chosen.sum()


def test_head_equals_transformers_bert_head(tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers.models.bert.modeling_bert")
    from transformers import BertConfig

    model = masked(tokenizer)
    theirs = transformers.BertLMPredictionHead(BertConfig(vocab_size=270, hidden_size=16, layer_norm_eps=1e-5))
    theirs.transform.dense.load_state_dict(model.head.dense.state_dict())
    theirs.transform.LayerNorm.load_state_dict(model.head.norm.state_dict())
    theirs.decoder.weight, theirs.decoder.bias = model.encoder.tokens.weight, model.head.bias
    x = torch.randn(5, 16)
    torch.testing.assert_close(model.head(x), theirs(x), atol=1e-5, rtol=1e-4)


def test_rows_with_nothing_to_mask_give_a_finite_loss(tokenizer: Tokenizer) -> None:
    model = masked(tokenizer)
    batch = with_specials([2, 2])
    out = model.step(batch)
    assert out.total() == 0
    out.total().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.step(with_specials([2, 9])).total().isfinite()


@pytest.mark.parametrize("make", [masked, causal])
def test_logits_do_not_see_padding_or_mates(make: Any, tokenizer: Tokenizer) -> None:
    encoder = make(tokenizer).encoder.eval()
    batch = with_specials([20, 9])
    states = encoder(batch).states[-1]
    changed = replace(batch, ids=batch.ids.masked_fill(~batch.mask, 77))
    changed.ids[0] = torch.randint(5, VOCAB, (20,))
    torch.testing.assert_close(encoder(changed).states[-1][1, :9], states[1, :9])


def test_embedding_and_output_are_one_tensor_also_after_a_move(tokenizer: Tokenizer) -> None:
    model = masked(tokenizer).double()
    assert model.head.tied[0] is model.encoder.tokens
    assert sum(p is model.encoder.tokens.weight for p in model.parameters()) == 1
    assert not any("tied" in k for k in model.state_dict())


# CausalLM ----------------------------------------------------------------------------------------------------------


def test_loss_shifts_once_and_skips_padding_and_document_ends(tokenizer: Tokenizer) -> None:
    model = causal(tokenizer)
    batch = with_specials([12, 7])
    batch.ids[0, 5] = 3  # a document ends in the middle
    logits = model.logits(model.encoder(batch).states[-1])
    terms = [
        F.cross_entropy(logits[b, t], batch.ids[b, t + 1])
        for b in range(2)
        for t in range(11)
        if batch.mask[b, t + 1] and batch.ids[b, t] != 3
    ]
    out = model.step(batch)
    torch.testing.assert_close(out.total(), torch.stack(terms).mean())
    assert out.terms["loss"].count == len(terms) == 10 + 6


def test_loss_does_not_depend_on_what_stands_in_the_padding(tokenizer: Tokenizer) -> None:
    model, batch = causal(tokenizer), with_specials([20, 9])
    changed = replace(batch, ids=batch.ids.masked_fill(~batch.mask, 3))
    torch.testing.assert_close(model.step(batch).total(), model.step(changed).total())


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_logits_do_not_see_later_tokens(positions: str, tokenizer: Tokenizer) -> None:
    encoder = causal(tokenizer, positions=positions).encoder.eval()
    batch = text_batch([12, 12])
    changed = replace(batch, ids=batch.ids.clone())
    changed.ids[:, 7:] = torch.randint(5, VOCAB, (2, 5))
    a, b = encoder(batch).states[-1], encoder(changed).states[-1]
    torch.testing.assert_close(a[:, :7], b[:, :7])
    assert not torch.allclose(a[:, 7:], b[:, 7:])


def test_encoders_that_see_the_future_are_refused() -> None:
    with pytest.raises(UserError, match="causal: true"):
        CausalLM(tiny_text_encoder())


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_generation_with_a_cache_equals_generation_without(positions: str, tokenizer: Tokenizer) -> None:
    model = causal(tokenizer, positions=positions)
    ids = [2, *tokenizer.encode("some prompt", add_special_tokens=False).ids]
    model.encoder.eval()
    for _ in range(20):
        tokens = torch.tensor([ids])
        batch = TextBatch(tokens[:, 0], tokens[:, 0], None, tokens, torch.ones_like(tokens, dtype=torch.bool))
        logits = model.logits(model.encoder(batch).states[-1][0, -1]).detach()
        logits[[0, 1, 2, 4]] = -torch.inf
        logits[VOCAB:] = -torch.inf
        best = int(logits.argmax())
        if best == 3:
            break
        ids.append(best)
    assert model.generate("some prompt", 20, temperature=0) == tokenizer.decode(ids)


def test_generation_is_repeatable_bounded_and_leaves_training_mode_alone(tokenizer: Tokenizer) -> None:
    model = causal(tokenizer).train()
    first = model.generate("ab", 30, seed=1)
    assert first == model.generate("ab", 30, seed=1) != model.generate("ab", 30, seed=2)
    assert first.startswith("ab")
    assert all(m.training for m in model.encoder.modules())
    assert len(model.generate("ab", 500, seed=3)) <= 63


def test_a_prompt_that_fills_the_window_is_refused(tokenizer: Tokenizer) -> None:
    model = causal(tokenizer)
    prompt = "é" * 40  # two bytes, two tokens each
    with pytest.raises(UserError, match=f"the encoder reads {model.encoder.longest}: nothing can follow it; shorten"):
        model.generate(prompt, 5)


def test_masks_need_an_encoder_that_sees_both_sides() -> None:
    for encoder in (tiny_text_encoder(causal=True), LSTMEncoder(vocab_size=270, dim=16, layers=1)):
        with pytest.raises(UserError, match="MaskedLM needs a bidirectional TextEncoder"):
            MaskedLM(encoder)
    with pytest.raises(UserError, match="CausalLM needs an encoder with causal: true"):
        CausalLM(tiny_text_encoder())


def test_draws_respect_temperature_top_k_and_top_p() -> None:
    logits = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05]).log()[torch.tensor([3, 0, 4, 1, 2])]
    generator = torch.Generator().manual_seed(0)

    def drawn(n: int = 400, **options: Any) -> set[int]:
        full = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **options}
        return {pick(logits, generator=generator, **full) for _ in range(n)}

    assert drawn() == {0, 1, 2, 3, 4}
    assert drawn(temperature=0) == {1}
    assert drawn(temperature=0.01) == {1}
    assert drawn(top_k=2) == {1, 3}
    assert drawn(top_k=99) == {0, 1, 2, 3, 4}
    assert drawn(top_p=0.6) == {1, 3}
    assert drawn(top_p=0.4) == {1}
    assert drawn(top_p=0.0) == {1}
    share = sum(pick(logits, 1.0, 0, 1.0, generator) == 1 for _ in range(2000)) / 2000
    assert abs(share - 0.5) < 0.06


# Validation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [MaskedLM, CausalLM])
def test_validation_loss_is_the_sum_over_all_tokens_divided_by_their_number(
    method: Any, text_file: str, tmp_path: Path
) -> None:
    pl.seed_everything(0)
    data = Text(text_file, tokenizer="byte", max_length=64, pack=False, batch_size=4, eval_batch_size=3)
    model = method(tiny_text_encoder(causal=method is CausalLM))
    with torch.no_grad():
        model.encoder.tokens.weight.mul_(50)
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, **QUIET)
    (figures,) = trainer.validate(model, data, verbose=False)
    model.eval()
    outs = [model.step(batch) for batch in data.val_dataloader()]
    weights = [float(out.terms["loss"].count) for out in outs]
    assert len({*weights}) > 1
    total = sum(float(out.total()) * w for out, w in zip(outs, weights, strict=True)) / sum(weights)
    assert figures["val/loss"] == pytest.approx(total, rel=1e-5)
    plain = sum(float(out.total()) for out in outs) / len(outs)
    assert figures["val/loss"] != pytest.approx(plain, rel=1e-5)
    assert figures["val/perplexity"] == pytest.approx(torch.tensor(total).exp().item(), rel=1e-4)


@pytest.mark.parametrize("options", [{"pack": False}, {"separate": True}])
def test_bits_a_byte_are_those_of_all_bytes_scored(options: dict[str, bool], text_file: str, tmp_path: Path) -> None:
    pl.seed_everything(0)
    length = 512 if "pack" in options else 7  # no document is longer; or every token stands in some block
    data = Text(text_file, tokenizer="char", max_length=length, batch_size=4, eval_batch_size=3, **options)
    model = CausalLM(tiny_text_encoder(causal=True, max_length=length))
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, **QUIET)
    (figures,) = trainer.validate(model, data, verbose=False)
    documents = data.rows["validation"].column("text")
    size = sum(len(text.encode()) for text in documents)
    assert data.tokens_per_byte("validation") == pytest.approx((size + len(documents)) / size)  # plain ASCII
    if "pack" in options:
        model.eval()
        outs = [model.step(batch) for batch in data.val_dataloader()]
        assert sum(out.terms["loss"].count for out in outs) == size + len(documents)
        nats = sum(float(out.total().detach()) * out.terms["loss"].count for out in outs)
        assert figures["val/bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    else:
        wanted = figures["val/loss"] / math.log(2) * (size + len(documents)) / size
        assert figures["val/bits_per_byte"] == pytest.approx(wanted, rel=1e-5)


def test_no_loss_from_one_separate_document_to_the_next(tokenizer: Tokenizer) -> None:
    model = causal(tokenizer).eval()
    batch = text_batch([12])
    batch.documents = torch.tensor([[0] * 5 + [1] * 7])
    whole = model.step(batch)
    assert whole.terms["loss"].count == 10
    states = model.encoder(batch).states[-1][0]
    losses = torch.nn.functional.cross_entropy(model.logits(states[:-1]), batch.ids[0, 1:], reduction="none")
    kept = [t for t in range(11) if t != 4]
    assert float(whole.total()) == pytest.approx(float(losses[kept].mean()), rel=1e-5)
