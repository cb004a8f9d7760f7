"""Holes: which positions of an input a student does not see, drawn for each item from its seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.check import within
from ssl_suite.core.encoder import Tokens
from ssl_suite.core.random import uniform


@dataclass(frozen=True, eq=False)
class Selection:
    """M selections of each item of a batch, the M of an item one after the other.

    Attributes:
        places: (M·B, K) what is seen, ascending.
        real: (M·B, K) False where a shorter row sees fewer than K; None where no row is shorter.
        hidden: (M·B, T) what is to be predicted.
    """

    places: Tensor
    real: Tensor | None
    hidden: Tensor

    def spread(self, seen: Tensor, fill: Tensor) -> Tensor:
        """(M·B, K, D) → (M·B, T, D): what was seen at its places, `fill` (D,) or (M·B, T, D) elsewhere."""
        whole = fill.to(seen.dtype).expand(*self.hidden.shape, seen.shape[2])
        at = self.places[..., None].expand_as(seen)
        if self.real is not None:
            seen = torch.where(self.real[..., None], seen, whole.gather(1, at))
        return whole.scatter(1, at, seen)


@dataclass(frozen=True)
class Holes:
    """How many positions are hidden, and in which shape (data2vec 2.0, arXiv:2212.07525).

    Blocks are drawn with replacement; single positions, drawn at random, then make up for what they miss of the share
    or go beyond it, so that all inputs of one length keep equally many.

    Args:
        rate: share of positions to hide.
        block: length, or for images side, of a block; 1 for single positions.
        adjust: share for which blocks are drawn beyond the one they shall cover, as they overlap.
        inverse: blocks are what is seen.
    """

    rate: float = 0.8
    block: int = 3
    adjust: float = 0.07
    inverse: bool = True

    def __post_init__(self) -> None:
        within("holes.rate", self.rate, above=0, below=1)
        within("holes.block", self.block, low=1, whole=True)
        within("holes.adjust", self.adjust, low=0, below=1)

    def draw(self, tokens: Tokens, seeds: Tensor, times: int = 1) -> Selection:
        """Draws `times` selections of each of B inputs; waits for no device."""
        mask = tokens.mask.repeat_interleave(times, 0)  # (N, T)
        length = mask.shape[1]
        count = mask.sum(1, keepdim=True)
        score = draws(seeds, length, times, stream=300)
        if self.block > 1:
            score = score + (self.blocks(tokens, seeds, count, times) == self.inverse)
        keep = (count.double() * (1 - self.rate)).round().clamp(min=1)  # as Python rounds `k`
        k = max(1, round(length * (1 - self.rate)))
        places = score.masked_fill(~mask, -1.0).topk(k).indices
        real = torch.arange(k, device=mask.device) < keep  # (N, k)
        places, order = places.sort(1)
        real = real.gather(1, order)
        seen = torch.zeros_like(mask).scatter(1, places, real)
        return Selection(places, None if tokens.dense else real, mask & ~seen)

    def blocks(self, tokens: Tokens, seeds: Tensor, count: Tensor, times: int) -> Tensor:
        """(N, T) True inside a block."""
        n, length = len(count), tokens.values.shape[1]
        share = (1 - self.rate if self.inverse else self.rate) + self.adjust
        area = self.block if tokens.grid is None else self.block**2
        most = max(1, int(length * share / area))
        wanted = torch.arange(most, device=count.device) < (count * share / area).int().clamp(min=1)  # (N, most)
        centres = (draws(seeds, most, times, stream=400) * count).long()
        marks = torch.zeros(n, length, device=count.device, dtype=torch.float32).scatter_add(1, centres, wanted.float())
        before, after = (self.block - 1) // 2, self.block // 2
        if tokens.grid is None:
            return F.max_pool1d(F.pad(marks, (before, after)), self.block, 1) > 0
        padded = F.pad(marks.view(n, *tokens.grid), (before, after, before, after))
        return F.max_pool2d(padded, self.block, 1).flatten(1) > 0


def draws(seeds: Tensor, n: int, times: int, stream: int) -> Tensor:
    """(M·B, n) uniform numbers, M rows an item."""
    return torch.stack([uniform(seeds, n, stream + i) for i in range(times)], 1).flatten(0, 1)
