"""XVector: one vector of a sequence by a time-delay network (Snyder et al. 2018), as SUPERB verifies speakers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import lengths_to_mask

CONTEXTS, DILATIONS = (5, 3, 3, 1, 1), (1, 2, 3, 1, 1)
SPAN = 1 + sum((context - 1) * dilation for context, dilation in zip(CONTEXTS, DILATIONS, strict=True))
"""States that one output of the last layer sees."""


class XVector(nn.Module):
    """Projection, five time-delay layers, mean and deviation over time, two layers (SUPERB, arXiv:2105.01051).

    The layers see whole contexts only, so that a sequence ends up `SPAN` − 1 states shorter; one shorter than that is
    continued by zeros. Nothing of the padding is seen: a sequence has the same vector in any batch.

    Args:
        dim: D, of the features.
        width: W, of the projection, of the layers and of the vectors.
        last: width of the last time-delay layer.
    """

    def __init__(self, dim: int, width: int = 512, last: int = 1500) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, width)
        widths = (width, width, width, width, last)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, out, context, dilation=dilation)
            for out, context, dilation in zip(widths, CONTEXTS, DILATIONS, strict=True)
        )
        self.compared, self.classified = nn.Linear(2 * last, width), nn.Linear(width, width)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) and (B, T) → (B, W) what is compared, and (B, W) after it what is classified."""
        x, lengths = self.projection(features).mT, mask.sum(1)  # (B, W, T)
        x = F.pad(x, (0, max(0, SPAN - x.shape[2])))
        for layer, context, dilation in zip(self.layers, CONTEXTS, DILATIONS, strict=True):
            x = layer(x * lengths_to_mask(lengths, x.shape[2])[:, None]).relu()
            lengths = (lengths - (context - 1) * dilation).clamp(min=1)
        vector = self.compared(statistics(x.mT.float(), lengths_to_mask(lengths, x.shape[2]))).relu()
        return vector, self.classified(vector).relu()


def statistics(x: Tensor, mask: Tensor) -> Tensor:
    """(B, T, D) → (B, 2 D): mean and standard deviation (of a sample) over the True positions of (B, T)."""
    count = mask.sum(1, keepdim=True)  # (B, 1)
    real = mask[..., None]
    mean = (x * real).sum(1) / count
    squares = ((x - mean[:, None]).square() * real).sum(1) / (count - 1).clamp(min=1)
    return torch.cat([mean, squares.clamp(min=1e-12).sqrt()], 1)
