"""The trunk against attention written out, and what masks, caches and rotary positions promise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ssl_suite.core.batch import lengths_to_mask
from ssl_suite.core.errors import UserError
from ssl_suite.encoders.masks import AttentionMask
from ssl_suite.encoders.positions import rotate
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.transformer import Attention, Dropout, KVCache, Transformer
from ssl_suite.encoders.trunk import TrunkConfig


def naive_attention(attention: Attention, x: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax of scaled dot products, one head and one query at a time."""
    b, t, d = x.shape
    h, w = attention.config.heads, d // attention.config.heads
    q, k, v = (p.view(b, t, h, w) for p in attention.qkv(x).chunk(3, -1))
    out = torch.zeros(b, t, h, w)
    for i in range(b):
        for head in range(h):
            qh, kh = q[i, :, head], k[i, :, head]
            if attention.rotary:
                qh, kh = (rotate(y[None, None], 0)[0, 0] for y in (qh, kh))
            for s in range(t):
                seen = torch.ones(t, dtype=torch.bool) if mask is None else mask[i].clone()
                if attention.causal:
                    seen[s + 1 :] = False
                score = (kh @ qh[s] / w**0.5).masked_fill(~seen, -torch.inf)
                out[i, s, head] = score.softmax(0) @ v[i, :, head]
    return attention.out(out.reshape(b, t, d))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_equals_the_formula(causal: bool, positions: str, padded: bool) -> None:
    attention = Attention(TrunkConfig(16, 1, 2, causal, positions=positions, dropout=0.0))  # type: ignore[arg-type]
    x = torch.randn(3, 7, 16)
    mask = lengths_to_mask(torch.tensor([7, 4, 1]), 7) if padded else None
    ours = attention(x, AttentionMask(causal, mask).tensor())
    theirs = naive_attention(attention, x, mask)
    real = mask if mask is not None else torch.ones(3, 7, dtype=torch.bool)
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-5, rtol=1e-4)


def test_rotary_scores_depend_on_distance_only_and_keep_lengths() -> None:
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(i: int, j: int) -> float:
        return float((rotate(q, i) * rotate(k, j)).sum())

    assert score(5, 2) == pytest.approx(score(105, 102), abs=1e-4)
    assert score(0, 0) == pytest.approx(float((q * k).sum()), abs=1e-5)
    assert score(5, 2) != pytest.approx(score(5, 3), abs=1e-3)
    torch.testing.assert_close(rotate(q, 17).norm(), q.norm())


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("pieces", [[5, 1, 1, 1], [3, 2, 3], [1] * 8])
def test_reading_piece_by_piece_with_a_cache_equals_reading_at_once(
    positions: str, norm: str, pieces: list[int]
) -> None:
    trunk = Transformer(TrunkConfig(16, 3, 2, True, norm, positions, dropout=0.0)).eval()  # type: ignore[arg-type]
    for p in trunk.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x, cache = torch.randn(2, 8, 16), KVCache()
    seen = torch.cat([trunk(piece, None, cache)[-1] for piece in x.split(pieces, 1)], 1)
    torch.testing.assert_close(seen, trunk(x)[-1], atol=1e-5, rtol=1e-4)
    assert cache.length == 8


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "geglu", "swiglu"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_variant_learns_with_all_its_parameters(activation: str, norm: str) -> None:
    trunk = Transformer(TrunkConfig(16, 2, 2, norm=norm, activation=activation))  # type: ignore[arg-type]
    states = trunk(torch.randn(2, 5, 16))
    assert [s.shape for s in states] == [(2, 5, 16)] * 3
    states[-1].square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trunk.parameters())


@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_no_real_state(causal: bool) -> None:
    trunk = Transformer(TrunkConfig(16, 2, 2, causal)).eval()
    x, mask = torch.randn(2, 7, 16), lengths_to_mask(torch.tensor([7, 4]), 7)
    for padded, alone in zip(trunk(x, mask), trunk(x[1:, :4]), strict=True):
        torch.testing.assert_close(padded[1:, :4], alone, atol=1e-5, rtol=1e-4)


def test_residual_projections_start_smaller() -> None:
    trunk = Transformer(TrunkConfig(256, 8, 4))
    block = trunk.blocks[0]
    assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.feed_forward.down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert block.attention.out.bias.abs().max().item() == 0


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UserError, match="heads"):
        TrunkConfig(10, 1, 3)


def test_bert_base_and_gpt2_have_their_sizes() -> None:
    with torch.device("meta"):
        bert = TextEncoder(30522, 768, 12, 12, 512, norm="post", segments=2)
        gpt2 = TextEncoder(50257, 768, 12, 12, 1024, causal=True, activation="gelu_tanh")
    assert bert.num_parameters() == 108_891_648  # bert-base-uncased without its pooler
    assert gpt2.num_parameters() == 124_439_808


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_dropout_drops_the_share_asked_for_and_keeps_the_mean(p: float) -> None:
    x = torch.ones(999, 333, requires_grad=True)  # not a multiple of the four draws a word holds
    y = Dropout(p)(x)
    kept = (y != 0).float()
    assert kept.mean() == pytest.approx(1 - p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5 + 1e-4)
    if p < 1:
        assert torch.allclose(y[y != 0], torch.tensor(1 / (1 - p)), rtol=1e-4)
        assert (kept[:, 1:] * kept[:, :-1]).mean() == pytest.approx((1 - p) ** 2, abs=5e-3)  # neighbours independent
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert torch.equal(Dropout(p).eval()(x), x)


def test_dropout_is_what_the_seed_says() -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(Dropout(0.3)(torch.ones(7, 5)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
