"""Where in time a state stands: convolutions over the sequence, and logits that depend on distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.check import within
from ssl_suite.core.encoder import Tokens
from ssl_suite.core.errors import UserError


def rotate(x: Tensor, start: int, places: Tensor | None = None, base: float = 1e4) -> Tensor:
    """Rotary positions on (B, H, T, d): pairs (i, i + d/2) turn by t · base^(−2i/d).

    Scores depend on distances only, so packed documents that see none but themselves need no restart.

    Args:
        x: queries or keys.
        start: t of the first.
        places: (B, T), the t of each, where they do not follow one another.
        base: the greater, the slower they turn.
    """
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    follow = torch.arange(start, start + x.shape[2], device=x.device, dtype=torch.float32)
    angle = (follow if places is None else places[:, None].float())[..., None] * frequency  # (T or B, 1, T; d/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class TapNormConv1d(nn.Conv1d):
    """A convolution over time whose weight has a length of its own at each tap: weight norm (arXiv:1602.07868)."""

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(self.weight, std=2 / (kernel * dim) ** 0.5)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]
        self.gain = nn.Parameter(self._lengths().detach().clone())  # (1, 1, kernel)

    def _lengths(self) -> Tensor:
        return torch.linalg.vector_norm(self.weight, dim=(0, 1), keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * (self.gain / self._lengths())
        return F.conv1d(x, weight, self.bias, padding=self.padding, groups=self.groups)


class ConvPositions(nn.Module):
    """Relative positions by grouped convolutions over time; padding, and what a subset leaves out, is silence.

    One convolution is weight-normalised, as in wav2vec 2.0 (arXiv:2006.11477, section 2). Of several, as in data2vec
    (arXiv:2202.03555, section 4.2), each is followed by a layer norm without weights.

    Args:
        dim: D.
        kernel: taps of each; one more state comes out of an even one, and is cut.
        groups: of each; must divide `dim`.
        layers: how many.
    """

    def __init__(self, dim: int, kernel: int = 128, groups: int = 16, layers: int = 1) -> None:
        super().__init__()
        for name, value in (("kernel", kernel), ("groups", groups), ("layers", layers)):
            within(f"position_{name}", value, low=1, high=10_000, whole=True)
        if dim % groups:
            raise UserError(f"position_groups ({groups}) must divide dim ({dim}).")
        self.stacked = layers > 1
        self.convolutions = nn.ModuleList(
            nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
            if self.stacked
            else TapNormConv1d(dim, kernel, groups)
            for _ in range(layers)
        )

    def forward(self, tokens: Tokens) -> Tensor:
        """(B, T, D) with positions."""
        x, heard = tokens.values * tokens.mask[..., None], tokens.mask.to(tokens.values.dtype)
        if tokens.places is None:
            return x + self._relative(x, heard)
        at = tokens.places[..., None].expand_as(x)
        whole = x.new_zeros(len(x), tokens.length, x.shape[2]).scatter_add(1, at, x)
        heard = heard.new_zeros(len(x), tokens.length).scatter_add(1, tokens.places, heard)
        return x + self._relative(whole, heard).gather(1, at)

    def _relative(self, x: Tensor, heard: Tensor) -> Tensor:
        """(B, T, D), where (B, T) `heard` is 0 nothing is heard by any convolution."""
        for convolution in self.convolutions:
            y = convolution((x * heard[..., None]).mT)[..., : x.shape[1]].mT
            x = F.gelu(F.layer_norm(y, y.shape[-1:]) if self.stacked else y)
        return x


class RelativeBias(nn.Module):
    """A logit for each head and distance (WavLM, arXiv:2110.13900, section 3.1); one for all layers, which gate it.

    Args:
        heads: H.
        buckets: of signed distances, half of them for each sign: a half of those for one distance each, the others
            ever wider.
        reach: the distance from which on all are one.
    """

    def __init__(self, heads: int, buckets: int = 320, reach: int = 800) -> None:
        super().__init__()
        within("buckets", buckets, low=4, high=10_000, whole=True)
        within("reach", reach, above=buckets // 4, whole=True)
        self.reach = reach
        self.table = nn.Embedding(buckets, heads)

    def buckets(self, distance: Tensor) -> Tensor:
        """Whole key minus query places → whole numbers of buckets."""
        one_sign = self.table.num_embeddings // 2
        exact = one_sign // 2
        size = distance.abs()
        share = (size.clamp(min=exact).float() / exact).log() / math.log(self.reach / exact)
        wide = (exact + share * (one_sign - exact)).long().clamp(max=one_sign - 1)
        return torch.where(size < exact, size, wide) + one_sign * (distance > 0)

    def forward(self, places: Tensor) -> Tensor:
        """(B, T) places → (B, H, T, T) query × key."""
        return self.table(self.buckets(places[:, None, :] - places[:, :, None])).permute(0, 3, 1, 2)


class BiasGate(nn.Module):
    """How much of the relative bias each state of a layer wants: times a·(b·w − 1) + 2, per head (WavLM's equation 6).

    a and b are sigmoids of four summed projections each, as in the authors' code.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dim // heads, 8)
        self.weight = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, T, D) states and the (B, H, T, T) bias → its (B, H, T, T) for this layer."""
        heads = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, d)
        a, b = self.project(heads).unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, -1)  # each (B, H, T, 1)
        return bias * (a * (b * self.weight - 1) + 2)
