"""BLSTM: layers that read a sequence from both of its ends, and none of its padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BLSTM(nn.Module):
    """Bidirectional LSTMs (B, T, D) → (B, T, 2 · width), 0 at the padding; the host waits for no lengths.

    Args:
        dim: D.
        width: of each direction.
        layers: one upon the other.
        dropout: between them.
    """

    def __init__(self, dim: int, width: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [dim, *[2 * width] * (layers - 1)]
        self.ahead = nn.ModuleList(nn.LSTM(size, width, batch_first=True) for size in sizes)
        self.back = nn.ModuleList(nn.LSTM(size, width, batch_first=True) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        turned = torch.where(mask, mask.sum(1, keepdim=True) - 1 - places, places)[..., None]  # (B, T, 1)

        def turn(x: Tensor) -> Tensor:
            """Each row from its last real state to its first, and back."""
            return x.gather(1, turned.expand_as(x))

        for depth, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            read = self.dropout(features) if depth else features
            features = torch.cat([ahead(read)[0], turn(back(turn(read))[0])], -1)
        return features * mask[..., None]
