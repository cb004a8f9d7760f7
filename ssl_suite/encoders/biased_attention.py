"""Self-attention whose logits get a learned bias, on a CPU: SDPA's fused kernel there gives a bias no gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def biased_attention(qkv: Tensor, bias: Tensor) -> Tensor:
    """softmax(q kᵀ + bias) v, sequence by sequence, so that a sequence's logits stay in the cache.

    Queries, keys and values are read where one projection left them, and their gradients are written likewise: nothing
    is transposed or joined in memory, as it is around SDPA.

    Args:
        qkv: (B, T, 3, H, d); queries are scaled already.
        bias: (1 or B, H, T, T), −∞ where nothing is seen.

    Returns:
        (B, T, H · d).
    """
    return _BiasedAttention.apply(qkv, bias)


def fits(qkv: Tensor, bias: Tensor) -> bool:
    """Whether `biased_attention` is the faster way: a bias that learns, in full precision on a CPU."""
    learns = bias.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return learns and qkv.device.type == "cpu" and qkv.dtype == torch.float32


class _BiasedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor) -> Tensor:
        b, t, _, h, d = qkv.shape
        q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))  # each (B, H, T, d)
        shares, logits = qkv.new_empty(b, h, t, t), qkv.new_empty(h, t, t)
        y = qkv.new_empty(b, t, h, d)
        for i in range(b):
            torch.baddbmm(bias[i % len(bias)], q[i], k[i].mT, out=logits)
            torch.softmax(logits, -1, out=shares[i])
            y[i] = torch.bmm(shares[i], v[i]).transpose(0, 1)
        ctx.save_for_backward(qkv, shares)
        ctx.biases = len(bias)
        return y.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor]:
        qkv, shares = ctx.saved_tensors
        b, t, _, h, d = qkv.shape
        q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))
        d_qkv, d_bias = torch.empty_like(qkv), qkv.new_zeros(ctx.biases, h, t, t)
        d_out = d_y.unflatten(-1, (h, d)).transpose(1, 2)
        for i in range(b):
            p, g = shares[i], d_out[i]
            d_logits = torch._softmax_backward_data(torch.bmm(g, v[i].mT), p, -1, p.dtype)  # (H, T, T)
            d_bias[i % ctx.biases] += d_logits
            for part, gradient in enumerate(
                (torch.bmm(d_logits, k[i]), torch.bmm(d_logits.mT, q[i]), torch.bmm(p.mT, g))
            ):
                d_qkv[i, :, part] = gradient.transpose(0, 1)
        return d_qkv, d_bias
