"""One transformer trunk for every token sequence: text, frames of speech, patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.errors import UserError

Places = tuple[Tensor, ...]
"""Rows and positions of M chosen states, as `nonzero(as_tuple=True)` gives them."""


@dataclass(frozen=True)
class TrunkConfig:
    """Shape of a trunk.

    Args:
        dim: width D.
        layers: number of blocks.
        heads: attention heads; must divide `dim`.
        causal: position t sees positions ≤ t only.
        norm: pre (as GPT-2) or post (as BERT).
        positions: learned (added by `Embeddings`), rotary (RoFormer, arXiv:2104.09864) or none.
        activation: gelu, gelu_tanh, geglu or swiglu (arXiv:2002.05202).
        ffn: width of the feed-forward layer; default 4 · dim (8/3 · dim for the gated ones).
        dropout: of the residual branches; attention weights are not dropped, so that
            fused kernels serve on every device.
        eps: of the layer norms.
    """

    dim: int
    layers: int
    heads: int
    causal: bool = False
    norm: Literal["pre", "post"] = "pre"
    positions: Literal["learned", "rotary", "none"] = "learned"
    activation: Literal["gelu", "gelu_tanh", "geglu", "swiglu"] = "gelu"
    ffn: int | None = None
    dropout: float = 0.1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise UserError(f"heads ({self.heads}) must divide dim ({self.dim}).")


def attention_mask(mask: Tensor | None, causal: bool) -> Tensor | None:
    """Describes who sees whom, for SDPA: (B, 1, T or 1, T) bool, or None where the kernel's own flag says it all.

    A padded query would see nothing under a causal and a padding mask only if padding came first; it never does.
    """
    if mask is None:
        return None
    seen = mask[:, None, None, :]
    if not causal:
        return seen
    t = mask.shape[1]
    return seen & torch.ones(t, t, dtype=torch.bool, device=mask.device).tril()


class KVCache:
    """Keys and values of the positions a causal trunk has already seen, one pair a layer."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    @property
    def length(self) -> int:
        return self.seen(0)

    def seen(self, layer: int) -> int:
        """Positions that `layer` holds; while a piece runs, the layers below hold more."""
        return self.layers[layer][0].shape[2] if layer < len(self.layers) else 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if layer == len(self.layers):
            self.layers.append((k, v))
        else:
            old_k, old_v = self.layers[layer]
            self.layers[layer] = (torch.cat([old_k, k], 2), torch.cat([old_v, v], 2))
        return self.layers[layer]


def rotate(x: Tensor, start: int) -> Tensor:
    """Rotary positions on (B, H, T, d): pairs (i, i + d/2) turn by t · 10000^(−2i/d)."""
    half = x.shape[-1] // 2
    frequency = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(start, start + x.shape[2], device=x.device, dtype=torch.float32)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, c: TrunkConfig) -> None:
        super().__init__()
        self.heads, self.causal, self.rotary = c.heads, c.causal, c.positions == "rotary"
        self.qkv, self.out = nn.Linear(c.dim, 3 * c.dim), nn.Linear(c.dim, c.dim)

    def forward(
        self, x: Tensor, mask: Tensor | None, cache: KVCache | None = None, layer: int = 0, at: Places | None = None
    ) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
        start = cache.seen(layer) if cache is not None else 0
        if self.rotary:
            q, k = rotate(q, start), rotate(k, start)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        causal = self.causal and mask is None and t > 1
        if causal and start:  # the kernel's own flag would align the piece with the first key
            mask, causal = torch.ones(t, start + t, dtype=torch.bool, device=x.device).tril(start), False
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        y = y.transpose(1, 2).reshape(b, t, d)
        return self.out(y if at is None else y[at])

    def matrices(self) -> dict[Tensor, int]:
        return {self.qkv.weight: 3, self.out.weight: 1}


class FeedForward(nn.Module):
    """Two layers with a GELU, or the gated variants."""

    def __init__(self, c: TrunkConfig) -> None:
        super().__init__()
        self.gated = c.activation in ("geglu", "swiglu")
        hidden = c.ffn or (int(c.dim * 8 / 3) if self.gated else 4 * c.dim)
        self.up, self.down = nn.Linear(c.dim, 2 * hidden if self.gated else hidden), nn.Linear(hidden, c.dim)
        self.activation = {"swiglu": nn.SiLU(), "gelu_tanh": nn.GELU("tanh")}.get(c.activation, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            gate, value = self.up(x).chunk(2, -1)
            return self.down(self.activation(gate) * value)
        return self.down(self.activation(self.up(x)))

    def matrices(self) -> dict[Tensor, int]:
        return {self.up.weight: 2 if self.gated else 1, self.down.weight: 1}


class Block(nn.Module):
    """Attention and feed-forward, each on a residual branch."""

    def __init__(self, c: TrunkConfig) -> None:
        super().__init__()
        self.pre = c.norm == "pre"
        self.attention, self.feed_forward = Attention(c), FeedForward(c)
        self.norm1, self.norm2 = nn.LayerNorm(c.dim, c.eps), nn.LayerNorm(c.dim, c.eps)
        self.dropout = nn.Dropout(c.dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None, cache: KVCache | None = None, layer: int = 0, at: Places | None = None
    ) -> Tensor:
        kept = x if at is None else x[at]
        if self.pre:
            x = kept + self.dropout(self.attention(self.norm1(x), mask, cache, layer, at))
            return x + self.dropout(self.feed_forward(self.norm2(x)))
        x = self.norm1(kept + self.dropout(self.attention(x, mask, cache, layer, at)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class Transformer(nn.Module):
    """The trunk: embedded sequence → all its states.

    Initialisation is GPT-2's: N(0, 0.02), the two projections onto the residual stream scaled by 1/√(2·layers),
    biases zero.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim, config.eps) if config.norm == "pre" else nn.Identity()
        self.apply(init_weights)
        for name, weight in self.named_parameters():
            if name.endswith(("attention.out.weight", "feed_forward.down.weight")):
                nn.init.normal_(weight, std=0.02 / (2 * config.layers) ** 0.5)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None, at: Places | None = None
    ) -> tuple[Tensor, ...]:
        """Runs the blocks.

        Args:
            x: (B, T, D).
            mask: (B, T) True = real, or None where all are real.
            cache: of a causal trunk, for generation one piece at a time.
            at: the M positions whose output is wanted; the last block skips what only the others would need.

        Returns:
            layers + 1 tensors (B, T, D): the input, the output of each block; the last one normalised, and (M, D)
            where `at` is given.
        """
        seen = attention_mask(mask, self.config.causal)
        states = [x]
        for i, block in enumerate(self.blocks):
            states.append(block(states[-1], seen, cache, i, at if i == len(self.blocks) - 1 else None))
        states[-1] = self.norm(states[-1])
        return tuple(states)


def init_weights(module: nn.Module) -> None:
    """N(0, 0.02) for weights of linear layers and embeddings, zero biases."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
