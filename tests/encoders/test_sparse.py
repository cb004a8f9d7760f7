"""Attention by blocks against the same attention over all pairs, with who sees whom written out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny import text_batch, tiny_text_encoder
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch, lengths_to_mask
from ssl_suite.core.errors import UserError
from ssl_suite.encoders.masks import AttentionMask
from ssl_suite.encoders.sparse import BlockMask, big_bird, near
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.trunk import TrunkConfig

CPU = torch.device("cpu")
BLOCK, RANDOM, HEADS = 4, 2, 3


def written_out(row: AttentionMask, length: int, batch: int, rule: Any) -> Tensor:
    """(B, H, T, T) bool: `rule(b, h, i, j)` for real keys of the query's document."""
    seen = torch.zeros(batch, HEADS, length, length, dtype=torch.bool)
    for b in range(batch):
        real = torch.ones(length, dtype=torch.bool) if row.real is None else row.real[b]
        documents = torch.zeros(length) if row.documents is None else row.documents[b]
        own = (documents[:, None] == documents) & real
        for h in range(HEADS):
            allowed = torch.tensor([[rule(b, h, i, j) for j in range(length)] for i in range(length)])
            seen[b, h] = own & allowed
    return seen


def agree(mask: BlockMask, seen: Tensor, real: Tensor) -> None:
    """The same outputs and gradients at the real positions."""
    b, h, t, _ = seen.shape
    inputs = [torch.randn(b, h, t, 5).mul_(2).requires_grad_() for _ in range(3)]
    weight = torch.randn(b, h, t, 5) * real[:, None, :, None]
    found, wanted = (
        f(*inputs)
        for f in (
            mask.attend,
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=seen | ~seen.any(-1, keepdim=True)),
        )
    )
    at = real[:, None].expand(b, h, t)
    torch.testing.assert_close(found[at], wanted[at], atol=1e-5, rtol=1e-4)
    ours = torch.autograd.grad((found * weight).sum(), inputs)
    theirs = torch.autograd.grad((wanted * weight).sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def rows(kind: str, length: int) -> tuple[AttentionMask, Tensor, list[int]]:
    """Who sees whom in two rows, which positions are real, and how many those are."""
    lengths = [length, length] if kind in ("whole", "packed") else [length, length - 3 * BLOCK - 1]
    real = lengths_to_mask(torch.tensor(lengths), length)
    documents = torch.bucketize(torch.arange(length), torch.tensor([5, 6, length // 2]), right=True).expand(2, -1)
    return (
        AttentionMask(
            real=None if kind in ("whole", "packed") else real,
            documents=documents if "packed" in kind else None,
        ),
        real,
        lengths,
    )


KINDS = ["whole", "padded", "packed", "padded packed"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [40, 43])
def test_big_birds_blocks_equal_dense_attention(kind: str, length: int) -> None:
    row, real, lengths = rows(kind, length)
    mask = big_bird(row, length, HEADS, BLOCK, RANDOM, 1, CPU)
    drawn = mask.keys[..., 5:].expand(2, -1, -1, -1)

    def rule(b: int, h: int, i: int, j: int) -> bool:
        last, query, key = (lengths[b] - 1) // BLOCK, i // BLOCK, j // BLOCK
        ends = {0, last}
        if last < 5 + RANDOM:  # a row of so few blocks reads all, as it does alone
            return True
        return query in ends or key in ends or abs(query - key) <= 1 or key in drawn[b, h, query].tolist()

    agree(mask, written_out(row, length, 2, rule), real)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [40, 43])
def test_a_window_equals_dense_attention(kind: str, length: int) -> None:
    row, real, _ = rows(kind, length)
    agree(near(row, length, BLOCK, CPU), written_out(row, length, 2, lambda b, h, i, j: abs(i - j) <= BLOCK), real)


def test_each_middle_block_reads_its_number_of_distinct_blocks_drawn_for_layer_and_head() -> None:
    masks = [big_bird(AttentionMask(), 400, 8, BLOCK, RANDOM, layer, CPU) for layer in (0, 0, 1)]
    keys = masks[0].keys[0]  # (8, 100, 7)
    for i in range(2, 98):
        for h in range(8):
            assert len({*keys[h, i].tolist()}) == 5 + RANDOM
            assert {0, 99, i - 1, i, i + 1} < {*keys[h, i].tolist()}
    assert torch.equal(masks[0].keys, masks[1].keys)
    draws = [mask.keys[0, ..., 5:] for mask in masks]
    assert (draws[0] == draws[2]).float().mean() < 0.1
    assert all((draws[0][0] == draws[0][h]).float().mean() < 0.1 for h in range(1, 8))
    counts = draws[0][:, 2:98].flatten().bincount(minlength=100)[1:99].float()
    assert counts.std() < 2 * counts.mean().sqrt()  # evenly over the row


def sharp(**options: Any) -> TextEncoder:
    encoder = tiny_text_encoder(positions="rotary", dropout=0.0, layers=3, **options).eval()
    for p in encoder.parameters():
        nn.init.normal_(p, mean=0.0 if p.ndim > 1 else 0.3, std=0.3)
    return encoder


@pytest.mark.parametrize("attention", ["local", "blocks"])
def test_padding_and_batch_mates_change_no_state(attention: str) -> None:
    encoder = sharp(attention=attention, window=4, random_blocks=2)
    lengths = [50, 33, 17, 5, 1]
    batch = text_batch(lengths)
    with torch.no_grad():
        together = encoder(batch).states
        for row, length in enumerate(lengths):
            own = batch.ids[row : row + 1, :length], batch.mask[row : row + 1, :length]
            alone = encoder(TextBatch(batch.index[:1], batch.seed[:1], None, *own, dense=True)).states
            for a, b in zip(together, alone, strict=True):
                torch.testing.assert_close(a[row, :length], b[0], atol=1e-4, rtol=1e-3)
        other = replace(batch, ids=batch.ids.where(batch.mask, torch.randint_like(batch.ids, 5, 261)))
        assert torch.equal(encoder(other).states[-1][batch.mask], together[-1][batch.mask])


def test_packed_documents_are_as_each_alone_under_local_attention() -> None:
    encoder, lengths = sharp(attention="local", window=4), [20, 9, 3, 1, 17]
    batch = text_batch([sum(lengths)] * 2)
    documents = torch.repeat_interleave(torch.arange(5), torch.tensor(lengths)).expand(2, -1)
    with torch.no_grad():
        states = encoder(replace(batch, documents=documents, dense=True)).states
        for start, end in pairwise([0, *torch.tensor(lengths).cumsum(0).tolist()]):
            own = batch.ids[:, start:end], batch.mask[:, start:end]
            alone = encoder(TextBatch(batch.index, batch.seed, None, *own, dense=True)).states
            for a, b in zip(states, alone, strict=True):
                torch.testing.assert_close(a[:, start:end], b, atol=1e-4, rtol=1e-3)


def test_local_layers_see_their_window_and_every_third_layer_all() -> None:
    encoder = sharp(attention="local", window=4)
    batch = text_batch([60])
    changed = replace(batch, ids=batch.ids.clone())
    changed.ids[:, 30] = (batch.ids[:, 30] - 5 + 1) % 200 + 5
    with torch.no_grad():
        moved = [(a != b).any(-1)[0] for a, b in zip(encoder(batch).states, encoder(changed).states, strict=True)]
        assert moved[1].all()  # the first layer sees all
        embedded = encoder.embed(batch).values, encoder.embed(changed).values
        second = [encoder.trunk.blocks[1](x, near(AttentionMask(), 60, 4, CPU), None, 1) for x in embedded]
    assert (second[0] != second[1]).any(-1)[0].nonzero().flatten().tolist() == list(range(26, 35))


def test_a_subset_sees_by_its_places_or_is_refused() -> None:
    places = torch.arange(0, 60, 2)[None]
    batch = text_batch([60])
    encoder = sharp(attention="local", window=4)
    kept = encoder.embed(batch).keep(places)
    with torch.no_grad():
        states = encoder.contextualise(kept).states
        hidden = replace(batch, mask=batch.mask & (torch.arange(60) % 2 == 0))
        wanted = encoder(hidden).states
    for a, b in zip(states, wanted, strict=True):
        torch.testing.assert_close(a, b[:, ::2], atol=1e-4, rtol=1e-3)
    blocks = sharp(attention="blocks", window=4)
    with pytest.raises(UserError, match="cannot encode the visible ones alone"):
        blocks.contextualise(blocks.embed(batch).keep(places))


def test_short_rows_see_all_and_causal_trunks_are_refused() -> None:
    full, blocks = sharp(), sharp(attention="blocks", window=8, random_blocks=2)
    blocks.load_state_dict(full.state_dict())
    batch = text_batch([56, 20])
    with torch.no_grad():
        torch.testing.assert_close(full(batch).states[-1], blocks(batch).states[-1])
    for attention in ("local", "blocks"):
        with pytest.raises(UserError, match="this one is causal"):
            TrunkConfig(16, 2, 2, causal=True, attention=attention)  # type: ignore[arg-type]


def test_norms_and_layers_without_biases_have_none() -> None:
    encoder = tiny_text_encoder(bias=False, embedding_norm=True, positions="rotary", activation="geglu")
    assert not [name for name, _ in encoder.named_parameters() if "bias" in name]
    assert isinstance(encoder.trunk.blocks[0].norm1, nn.Identity)  # the embeddings' norm stands for it
    assert isinstance(encoder.trunk.blocks[1].norm1, nn.LayerNorm)
    assert isinstance(tiny_text_encoder(rms_norm=True).trunk.norm, nn.RMSNorm)


@pytest.mark.parametrize("length", [21, 24, 25, 28, 29])
def test_a_row_of_about_as_many_blocks_as_it_reads_is_the_same_beside_a_longer_one(length: int) -> None:
    encoder = sharp(attention="blocks", window=BLOCK, random_blocks=RANDOM)
    batch = text_batch([48, length])
    own = batch.ids[1:, :length], batch.mask[1:, :length]
    with torch.no_grad():
        alone = encoder(TextBatch(batch.index[:1], batch.seed[:1], None, *own, dense=True)).states[-1][0]
        beside = encoder(batch).states[-1][1, :length]
    torch.testing.assert_close(beside, alone, atol=1e-4, rtol=1e-3)
