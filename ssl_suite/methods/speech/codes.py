"""Codes of a codebook: as vectors, and how many are in use."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot(codes: Tensor, size: int) -> Tensor:
    """(…) codes → (…, size) 1.0 at its code, else 0; unlike torch's own it waits for no device."""
    return (codes[..., None] == torch.arange(size, device=codes.device)).float()


@torch.no_grad()
def perplexity(codes: Tensor, size: int, counted: Tensor | None = None) -> Tensor:
    """exp of the entropy of how often each code is used: 1 where all are one, `size` where all are used alike.

    Args:
        codes: (M, N) of N codebooks.
        size: of each.
        counted: (M,) False for those that are left out.

    Returns:
        Mean over the codebooks; waits for no device.
    """
    counts = torch.zeros(codes.shape[1], size, device=codes.device)
    weight = counts.new_ones(len(codes)) if counted is None else counted.to(counts)
    counts.scatter_add_(1, codes.T, weight.expand_as(codes.T))
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    return torch.special.entr(share).sum(1).exp().mean()
