"""Attention with a learned bias is SDPA's, to the gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ssl_suite.encoders.biased_attention import biased_attention, fits


@pytest.mark.parametrize("biases", [1, 3])
def test_output_and_gradients_are_sdpas(biases: int) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(3, 7, 3, 2, 4, requires_grad=True)
    bias = torch.randn(biases, 2, 7, 7, requires_grad=True)
    logits = bias.masked_fill(~torch.ones(7, 7, dtype=torch.bool).tril(), -torch.inf)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    wanted = F.scaled_dot_product_attention(q, k, v, logits, scale=1.0).transpose(1, 2).flatten(2)
    assert fits(qkv, logits)
    own = biased_attention(qkv, logits)
    torch.testing.assert_close(own, wanted)
    weight = torch.randn_like(own)
    given = torch.autograd.grad(own, (qkv, bias), weight, retain_graph=True)
    for a, b in zip(given, torch.autograd.grad(wanted, (qkv, bias), weight), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_it_is_for_a_bias_that_learns_on_a_cpu_in_full_precision() -> None:
    qkv, bias = torch.randn(1, 2, 3, 1, 4), torch.randn(1, 1, 2, 2)
    assert not fits(qkv, bias)
    bias.requires_grad_(True)
    assert fits(qkv, bias)
    assert not fits(qkv.bfloat16(), bias)
    with torch.no_grad():
        assert not fits(qkv, bias)
