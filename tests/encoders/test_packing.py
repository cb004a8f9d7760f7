"""What a token's state may depend on: real tokens of its own document, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny import text_batch, tiny_text_encoder
from torch import Tensor, nn

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.errors import UserError
from ssl_suite.encoders.masks import AttentionMask, positions_within
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.transformer import Transformer
from ssl_suite.encoders.trunk import TrunkConfig
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.masked_lm import MaskedLM

SHAPES = [(causal, positions) for causal in (False, True) for positions in ("learned", "rotary")]
LENGTHS = [5, 3, 4]


def sharp_encoder(causal: bool, positions: str, **options: Any) -> TextEncoder:
    """Weights large enough that attention is far from uniform: a leak would show."""
    encoder = tiny_text_encoder(causal=causal, positions=positions, segments=2, **options).eval()
    for p in encoder.parameters():
        nn.init.normal_(p, mean=0.0 if p.ndim > 1 else 0.3, std=0.3)
    return encoder


def logits(encoder: TextEncoder, batch: TextBatch) -> Tensor:
    torch.manual_seed(1)  # the same head each time
    with torch.no_grad():
        states = encoder(batch).states[-1]
        return CausalLM(encoder).logits(states) if encoder.config["causal"] else MaskedLM(encoder).head(states)


def packed(rows: int = 2, padding: int = 0) -> TextBatch:
    """Rows of three documents of 5, 3 and 4 tokens, and then padding."""
    batch = text_batch([sum(LENGTHS) + padding] * rows)
    documents = torch.repeat_interleave(torch.arange(4), torch.tensor([*LENGTHS, padding])).expand(rows, -1)
    mask = documents < 3
    return replace(batch, mask=mask, documents=documents, dense=not padding, segments=batch.ids % 2)


@pytest.mark.parametrize(("causal", "positions"), SHAPES)
@pytest.mark.parametrize("packing", [False, True])
def test_what_stands_in_padding_changes_no_logit(causal: bool, positions: str, packing: bool) -> None:
    encoder = sharp_encoder(causal, positions)
    batch = packed(padding=3) if packing else text_batch([7, 4, 1])
    other = replace(batch, ids=batch.ids.where(batch.mask, torch.randint_like(batch.ids, 5, 261)))
    assert not torch.equal(batch.ids, other.ids)
    before, after = logits(encoder, batch), logits(encoder, other)
    assert torch.equal(before[batch.mask], after[batch.mask])
    assert after.isfinite().all()


@pytest.mark.parametrize(("causal", "positions"), SHAPES)
def test_batch_mates_change_no_logit(causal: bool, positions: str) -> None:
    encoder, batch = sharp_encoder(causal, positions), text_batch([7, 4, 1])
    together = logits(encoder, batch)
    for row, length in enumerate([7, 4, 1]):
        alone = replace(batch, ids=batch.ids[row : row + 1, :length], mask=batch.mask[row : row + 1, :length])
        for dense in (False, True):
            found = logits(encoder, replace(alone, dense=dense))[0]
            torch.testing.assert_close(found, together[row, :length], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("causal", "positions"), SHAPES)
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("options", [{}, {"norm": "post", "shared": True}], ids=["pre", "shared"])
def test_packed_documents_are_as_each_alone(causal: bool, positions: str, padding: int, options: Any) -> None:
    encoder, batch = sharp_encoder(causal, positions, **options), packed(padding=padding)
    with torch.no_grad():
        states = encoder(batch).states
        starts = [0, *torch.tensor(LENGTHS).cumsum(0).tolist()]
        for start, end in pairwise(starts):
            assert batch.segments is not None
            own = batch.ids[:, start:end], batch.mask[:, start:end], batch.segments[:, start:end]
            alone = encoder(TextBatch(batch.index, batch.seed, None, *own, dense=True)).states
            for a, b in zip(states, alone, strict=True):
                torch.testing.assert_close(a[:, start:end], b, atol=1e-5, rtol=1e-4)
        places = torch.tensor([0, 1, 1]), torch.tensor([2, 6, 11])
        torch.testing.assert_close(encoder.output_at(batch, places), states[-1][places], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("causal", "positions"), SHAPES)
def test_another_packed_document_changes_no_logit(causal: bool, positions: str) -> None:
    encoder, batch = sharp_encoder(causal, positions), packed()
    before = logits(encoder, batch)
    for document in range(3):
        elsewhere = batch.documents != document
        other = replace(batch, ids=batch.ids.where(~elsewhere, torch.randint_like(batch.ids, 5, 261)))
        assert torch.equal(before[~elsewhere], logits(encoder, other)[~elsewhere])
        assert not torch.equal(before[elsewhere], logits(encoder, other)[elsewhere])
    joined = logits(encoder, replace(batch, documents=None))
    assert not torch.allclose(joined[:, 5:], before[:, 5:], atol=1e-2)  # without `documents` they do see each other


def test_positions_restart_in_each_document() -> None:
    documents = torch.tensor([[0, 0, 0, 1, 2, 2], [0, 1, 1, 1, 1, 1], [4, 4, 0, 0, 4, 4]])
    assert positions_within(documents).tolist() == [[0, 1, 2, 0, 0, 1], [0, 0, 1, 2, 3, 4], [0, 1, 0, 1, 0, 1]]


@pytest.mark.parametrize("causal", [False, True])
def test_who_sees_whom_is_as_written_out(causal: bool) -> None:
    real = torch.tensor([[1, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    documents = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]])
    for mask in (
        AttentionMask(causal, real),
        AttentionMask(causal, None, documents),
        AttentionMask(causal, real, documents),
    ):
        seen = mask.tensor()
        assert seen is not None
        for b in range(3):
            for i, j in torch.cartesian_prod(torch.arange(5), torch.arange(5)).tolist():
                wanted = not (causal and j > i)
                wanted &= mask.real is None or bool(real[b, j])
                wanted &= mask.documents is None or bool(documents[b, i] == documents[b, j])
                if mask.real is None or real[b, i]:
                    assert bool(seen.expand(3, 1, 5, 5)[b, 0, i, j]) == wanted
        assert seen.any(-1).all()  # a softmax over nothing would be NaN
    assert AttentionMask(causal).tensor() is None  # the kernel's own flag says it all


@pytest.mark.parametrize("causal", [False, True])
def test_rows_of_padding_alone_or_padded_in_front_give_numbers_and_gradients(causal: bool) -> None:
    trunk = Transformer(TrunkConfig(16, 2, 2, causal, dropout=0.0))
    x, mask = torch.randn(2, 4, 16, requires_grad=True), torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1]]).bool()
    states = trunk(x, mask)
    states[-1][mask].square().sum().backward()
    assert all(s.isfinite().all() for s in states)
    assert x.grad is not None
    assert x.grad.isfinite().all()
    torch.testing.assert_close(states[-1][1:, 2:], trunk(x[1:, 2:])[-1])


def test_a_shared_block_is_one_block_applied_again_and_again() -> None:
    shared, once = (TrunkConfig(16, n, 2, norm="post", dropout=0.0, shared=True) for n in (3, 1))
    deep, shallow = Transformer(shared), Transformer(once)
    shallow.load_state_dict(deep.state_dict())  # as many weights as a single layer
    x = torch.randn(2, 5, 16)
    states, y = deep(x), x
    assert len(states) == 4
    for state in states[1:]:
        y = shallow(y)[-1]
        torch.testing.assert_close(state, y)


def test_factorised_embeddings_have_alberts_size_and_two_layers_of_learning_rates() -> None:
    with torch.device("meta"):
        options: dict[str, Any] = {"norm": "post", "segments": 2, "shared": True, "embedding_dim": 128}
        albert = TextEncoder(30000, 768, 12, 12, 512, **options)
    assert albert.num_parameters() == 11_683_584 - 590_592  # albert-base-v2 without its pooler
    assert albert.num_states == 13
    layers = albert.layers()
    assert len(layers) == 2
    assert sorted(p.numel() for layer in layers for p in layer) == sorted(p.numel() for p in albert.parameters())


def test_a_causal_encoder_has_no_factorised_embedding() -> None:
    with pytest.raises(UserError, match="leave embedding_dim out"):
        tiny_text_encoder(causal=True, embedding_dim=8)
