"""Electra: what is replaced, what is told apart, and where gradients go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from tiny import text_batch, tiny_text_encoder
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import mean_of
from ssl_suite.core.random import uniform
from ssl_suite.methods.text.corrupt import choose_positions
from ssl_suite.methods.text.electra import Electra, detection
from ssl_suite.methods.text.vocabulary import draw

SPECIAL, MASK, VOCAB = torch.tensor([0, 1, 2, 3, 4]), 4, 261


def electra(**options: Any) -> Electra:
    model = Electra(tiny_text_encoder(dropout=0.0), **{"generator_size": 0.5, **options})
    model.special, model.mask_id, model.never = SPECIAL, MASK, torch.zeros(270)
    model.never[:5] = model.never[VOCAB:] = -torch.inf
    return model


def with_specials(lengths: list[int]) -> TextBatch:
    batch = text_batch(lengths)
    batch.ids[:, 0], batch.ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = 2, 3
    return batch


def test_both_losses_equal_their_definitions() -> None:
    model, batch = electra(), with_specials([30, 12, 7])
    out = model.step(batch)
    chosen = choose_positions(batch.mask & (batch.ids >= 5), batch.seed, 0.15)
    at = chosen.nonzero(as_tuple=True)
    embedded = model.encoder.look_up(batch.ids.masked_fill(chosen, MASK))
    logits = F.linear(model.generator(embedded, batch, at), model.encoder.tokens.weight, model.generator.bias)
    generator = F.cross_entropy(logits, batch.ids[at])
    p = (logits + model.never).softmax(-1).cumsum(-1)
    drawn = torch.tensor([int((row <= u).sum()) for row, u in zip(p, uniform(batch.seed, 30, 4)[at], strict=True)])
    ids = batch.ids.clone()
    ids[at] = drawn
    told = model.discriminator(model.encoder(replace(batch, ids=ids)).states[-1])
    loss = F.binary_cross_entropy_with_logits(told[batch.mask], (ids != batch.ids)[batch.mask].float())
    torch.testing.assert_close(out.terms["generator_loss"].mean, generator)
    torch.testing.assert_close(out.terms["discriminator_loss"].mean, loss)
    torch.testing.assert_close(out.total(), generator + 50 * loss)
    assert out.terms["discriminator_loss"].count == 49
    assert out.terms["generator_loss"].count == int(chosen.sum())


def test_head_equals_transformers_discriminator() -> None:
    theirs_of = pytest.importorskip("transformers.models.electra.modeling_electra").ElectraDiscriminatorPredictions
    from transformers import ElectraConfig

    head, theirs = electra().discriminator, theirs_of(ElectraConfig(hidden_size=16))
    theirs.dense.load_state_dict(head.dense.state_dict())
    theirs.dense_prediction.load_state_dict(head.out.state_dict())
    x = torch.randn(5, 16)
    torch.testing.assert_close(head(x), theirs(x[None])[0])


def test_a_token_drawn_right_counts_as_the_original() -> None:
    model, batch = electra(rate=1.0), with_specials([20, 20])
    batch.ids[:, 1:-1] = 9
    with torch.no_grad():
        model.generator.bias[9] = 1e4  # it can only draw 9
    assert mean_of(model.step(batch).logs["replaced"]) == 0
    batch.ids[:, 1:-1] = 11
    assert mean_of(model.step(batch).logs["replaced"]) == pytest.approx(36 / 40)


def test_the_discriminators_loss_does_not_reach_the_generator() -> None:
    model, batch = electra(), with_specials([20, 14])
    model.step(batch).terms["discriminator_loss"].mean.backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert all(p.grad is not None for p in model.discriminator.parameters())
    model.zero_grad()
    model.step(batch).terms["generator_loss"].mean.backward()
    assert all(p.grad is None for p in model.discriminator.parameters())
    assert all(p.grad is not None for p in (model.encoder.tokens.weight, model.encoder.positions.weight))  # shared
    assert all(p.grad is None for p in model.encoder.trunk.parameters())


def test_the_generator_is_narrower_and_owns_no_embedding() -> None:
    model = Electra(tiny_text_encoder(dim=32, heads=4, ffn=64), generator_size=0.25)
    config = model.generator.trunk.config
    assert (config.dim, config.heads, config.ffn, config.layers) == (8, 1, 16, 2)
    assert not any(isinstance(m, torch.nn.Embedding) for m in model.generator.modules())


def test_draws_follow_the_softmax_and_never_give_a_banned_id() -> None:
    n = 40000
    weight, states = torch.randn(12, 6), torch.randn(1, 6)
    bias = torch.zeros(12)
    bias[[0, 3, 11]] = -torch.inf
    ids = draw(states.expand(n, -1), weight, bias, uniform(torch.tensor([3]), n)[0])
    p = (states @ weight.T + bias).softmax(-1)[0].double()
    counts = ids.bincount(minlength=12)
    assert not counts[p == 0].any()
    assert chisquare(counts[p > 0], p[p > 0] / p.sum() * n).pvalue > 1e-4
    edges = draw(states.expand(2, -1), weight, bias, torch.tensor([0.0, 1 - 2**-24]))
    assert edges.tolist() == [1, 10]
    assert len(draw(states[:0], weight, bias, torch.empty(0))) == 0


def test_nothing_to_mask_gives_a_finite_loss() -> None:
    model = electra()
    out = model.step(with_specials([2, 2]))
    assert out.terms["generator_loss"].mean == 0
    assert mean_of(out.logs["replaced"]) == 0
    assert out.total().isfinite()


def test_samples_and_losses_do_not_see_padding() -> None:
    model, batch = electra(), with_specials([20, 9])
    changed = replace(batch, ids=batch.ids.masked_fill(~batch.mask, 77))
    torch.testing.assert_close(model.step(batch).total(), model.step(changed).total())


def test_detection_counts_both_kinds() -> None:
    logs = detection(torch.tensor([1, 0, 0, 1]).bool(), torch.tensor([1, 1, 0, 0]).bool())
    found = {name: mean_of(value) for name, value in logs.items()}
    assert {k: float(v) for k, v in found.items()} == {"replaced": 0.5, "accuracy": 0.5, "balanced_accuracy": 0.5}
    blind = detection(torch.zeros(4).bool(), torch.tensor([1, 0, 0, 0]).bool())
    assert mean_of(blind["balanced_accuracy"]) == 0.5


def test_causal_encoders_are_refused() -> None:
    with pytest.raises(UserError, match="bidirectional"):
        Electra(tiny_text_encoder(causal=True))
