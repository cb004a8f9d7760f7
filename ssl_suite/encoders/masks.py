"""Who sees whom in attention: as a mask over all pairs of positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class AttentionMask:
    """Who sees whom: a token sees real tokens of its own document, and under `causal` none that comes later.

    Args:
        causal: position t sees positions ≤ t only; (B,) bool where that holds for some rows, which needs `real`.
        real: (B, T) True = a real token; None where all are.
        documents: (B, T) which document of its row a token belongs to; None where each row is one.
    """

    causal: bool | Tensor = False
    real: Tensor | None = None
    documents: Tensor | None = None

    def tensor(self) -> Tensor | None:
        """(B, 1, T or 1, T) bool for SDPA, True = seen, or None where the kernel's own flag says it all.

        Every token, padding too, sees something: a softmax over nothing would be NaN, and spread.
        """
        if self.real is None and self.documents is None:
            return None
        if self.documents is None and self.causal is False:
            assert self.real is not None
            return (self.real | ~self.real.any(1, keepdim=True))[:, None, None, :]
        like = self.real if self.real is not None else self.documents
        assert like is not None
        own = torch.eye(like.shape[1], dtype=torch.bool, device=like.device)
        both = torch.ones_like(own)
        if isinstance(self.causal, Tensor):
            seen = both.tril() | ~self.causal[:, None, None]  # (B, T, T) query × key
        else:
            seen = both.tril() if self.causal else both
        if self.documents is not None:
            seen = seen & (self.documents[:, :, None] == self.documents[:, None, :])
        if self.real is not None:
            seen = seen & self.real[:, None, :]
        return (seen | own)[:, None]

    def rows(self, queries: Tensor) -> Tensor | None:
        """(B, 1, Q or 1, T) what the queries at (B, Q) places see of the whole row, not `causal`; or None for all."""
        seen = None if self.real is None else self.real[:, None, None]
        if self.documents is not None:
            own = self.documents.gather(1, queries)[:, None, :, None] == self.documents[:, None, None]
            seen = own if seen is None else seen & own
        return None if seen is None else seen | ~seen.any(-1, keepdim=True)


def positions_within(documents: Tensor) -> Tensor:
    """(B, T) document numbers → (B, T) positions, from 0 again in each document."""
    t = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return t - (t * first).cummax(1).values
