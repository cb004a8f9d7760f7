"""Log-likelihoods under a vocabulary, a few rows of logits at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = {"cpu": 2**22}
"""Logits held at once: what a CPU's cache keeps; elsewhere `LARGE`."""
LARGE = 2**27


def rows_at_once(weight: Tensor) -> int:
    """Rows of logits that are held together, for a (V, D) word embedding; at least one."""
    return max(1, CHUNK.get(weight.device.type, LARGE) // len(weight))


@torch.no_grad()
def token_log_likelihoods(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """(M,) log softmax(`states @ weight.T`) at `targets`, in float32 and as few rows of logits at a time."""
    rows = rows_at_once(weight)
    pieces = [
        -F.cross_entropy(F.linear(x, weight).float(), y, reduction="none")
        for x, y in zip(states.split(rows), targets.split(rows), strict=True)
    ]
    return torch.cat(pieces)
