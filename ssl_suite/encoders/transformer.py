"""One transformer trunk for every token sequence: text, frames of speech, patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError
from ssl_suite.encoders.positions import BiasGate, RelativeBias

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
        shared: one block applied `layers` times (ALBERT, arXiv:1909.11942, section 3.1).
        layer_drop: how often a block is passed by while it trains (arXiv:1909.11556).
        buckets: of the gated relative bias, see `RelativeBias`; 0: there is none.
        reach: of that bias.
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
    shared: bool = False
    layer_drop: float = 0.0
    buckets: int = 0
    reach: int = 800

    def __post_init__(self) -> None:
        for name in ("dim", "heads", "ffn"):
            if getattr(self, name) is not None:
                within(name, getattr(self, name), low=1, whole=True)
        within("layers", self.layers, low=0, high=10_000, whole=True)
        within("dropout", self.dropout, low=0, below=1)
        within("layer_drop", self.layer_drop, low=0, below=1)
        within("eps", self.eps, above=0)
        if self.dim % self.heads:
            raise UserError(f"heads ({self.heads}) must divide dim ({self.dim}).")
        if self.buckets and self.causal:
            raise UserError("A relative bias (buckets) is for trunks that see both sides; leave causal false.")


@dataclass(frozen=True, eq=False)
class AttentionMask:
    """Who sees whom: a token sees real tokens of its own document, and under `causal` none that comes later.

    Args:
        causal: position t sees positions ≤ t only.
        real: (B, T) True = a real token; None where all are.
        documents: (B, T) which document of its row a token belongs to; None where each row is one.
    """

    causal: bool = False
    real: Tensor | None = None
    documents: Tensor | None = None

    def tensor(self) -> Tensor | None:
        """(B, 1, T or 1, T) bool for SDPA, True = seen, or None where the kernel's own flag says it all.

        Every token, padding too, sees something: a softmax over nothing would be NaN, and spread.
        """
        if self.real is None and self.documents is None:
            return None
        if self.documents is None and not self.causal:
            assert self.real is not None
            return (self.real | ~self.real.any(1, keepdim=True))[:, None, None, :]
        like = self.real if self.real is not None else self.documents
        assert like is not None
        own = torch.eye(like.shape[1], dtype=torch.bool, device=like.device)
        seen = torch.ones_like(own).tril() if self.causal else torch.ones_like(own)  # (T, T) query × key
        if self.documents is not None:
            seen = seen & (self.documents[:, :, None] == self.documents[:, None, :])
        if self.real is not None:
            seen = seen & self.real[:, None, :]
        return (seen | own)[:, None]


def positions_within(documents: Tensor) -> Tensor:
    """(B, T) document numbers → (B, T) positions, from 0 again in each document."""
    t = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return t - (t * first).cummax(1).values


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


def rotate(x: Tensor, start: int, places: Tensor | None = None) -> Tensor:
    """Rotary positions on (B, H, T, d): pairs (i, i + d/2) turn by t · 10000^(−2i/d).

    Scores depend on distances only, so packed documents that see none but themselves need no restart.

    Args:
        x: queries or keys.
        start: t of the first.
        places: (B, T), the t of each, where they do not follow one another.
    """
    half = x.shape[-1] // 2
    frequency = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    follow = torch.arange(start, start + x.shape[2], device=x.device, dtype=torch.float32)
    angle = (follow if places is None else places[:, None].float())[..., None] * frequency  # (T or B, 1, T; d/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, c: TrunkConfig) -> None:
        super().__init__()
        self.heads, self.causal, self.rotary = c.heads, c.causal, c.positions == "rotary"
        self.qkv, self.out = nn.Linear(c.dim, 3 * c.dim), nn.Linear(c.dim, c.dim)
        self.gate = BiasGate(c.dim, c.heads) if c.buckets else None

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: KVCache | None = None,
        layer: int = 0,
        at: Places | None = None,
        places: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
        start = cache.seen(layer) if cache is not None else 0
        if self.rotary:
            q, k = rotate(q, start, places), rotate(k, start, places)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        causal = self.causal and mask is None and t > 1
        if causal and start:  # the kernel's own flag would align the piece with the first key
            mask, causal = torch.ones(t, start + t, dtype=torch.bool, device=x.device).tril(start), False
        if self.gate is not None and bias is not None:
            logits = self.gate(x, bias).to(q)
            mask = logits if mask is None else logits.masked_fill(~mask, -torch.inf)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        y = y.transpose(1, 2).reshape(b, t, d)
        return self.out(y if at is None else y[at])

    def matrices(self) -> dict[Tensor, int]:
        return {self.qkv.weight: 3, self.out.weight: 1}


class Dropout(nn.Dropout):
    """Dropout drawn on a CPU from 16 random bits an element: its generator is serial, so fewer bits are faster.

    The rate is that of nn.Dropout to within 2⁻¹⁷.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        dropped = round(self.p * 2**16)
        if dropped == 2**16:
            return x * 0.0
        return x * (bits >= dropped - 2**15).to(x.dtype).mul_(2**16 / (2**16 - dropped))


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
        self.dropout = Dropout(c.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: KVCache | None = None,
        layer: int = 0,
        at: Places | None = None,
        places: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        kept = x if at is None else x[at]
        if self.pre:
            x = kept + self.dropout(self.attention(self.norm1(x), mask, cache, layer, at, places, bias))
            return x + self.dropout(self.feed_forward(self.norm2(x)))
        x = self.norm1(kept + self.dropout(self.attention(x, mask, cache, layer, at, places, bias)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class Transformer(nn.Module):
    """The trunk: embedded sequence → all its states.

    Initialisation is GPT-2's: N(0, 0.02), the two projections onto the residual stream scaled by 1/√(2·layers),
    biases zero.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        blocks = min(1, config.layers) if config.shared else config.layers
        self.blocks = nn.ModuleList(Block(config) for _ in range(blocks))
        self.norm = nn.LayerNorm(config.dim, config.eps) if config.norm == "pre" else nn.Identity()
        self.bias = RelativeBias(config.heads, config.buckets, config.reach) if config.buckets else None
        self.apply(init_weights)
        for name, weight in self.named_parameters():
            if name.endswith(("attention.out.weight", "feed_forward.down.weight")):
                nn.init.normal_(weight, std=0.02 / (2 * config.layers) ** 0.5)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        at: Places | None = None,
        documents: Tensor | None = None,
        places: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Runs the blocks.

        Args:
            x: (B, T, D).
            mask: (B, T) True = real, or None where all are real.
            cache: of a causal trunk, for generation one piece at a time.
            at: the M positions whose output is wanted; the last block skips what only the others would need.
            documents: (B, T) which document of its row each position belongs to; none sees another.
            places: (B, T) where each position stands in a whole of which it is a part, in ascending order.

        Returns:
            layers + 1 tensors (B, T, D): the input, the output of each block; the last one normalised, and (M, D)
            where `at` is given.
        """
        seen = AttentionMask(self.config.causal, mask, documents).tensor()
        bias = self.distances(x, places)
        states, last = [x], self.config.layers - 1
        for i in range(self.config.layers):
            here = at if i == last else None
            y = self.blocks[i % len(self.blocks)](states[-1], seen, cache, i, here, places, bias)
            states.append(self.dropped(states[-1] if here is None else states[-1][here], y))
        states[-1] = self.norm(states[-1])
        return tuple(states)

    def distances(self, x: Tensor, places: Tensor | None) -> Tensor | None:
        """(1 or B, H, T, T) what the blocks gate, or None where the trunk has no relative bias."""
        if self.bias is None:
            return None
        return self.bias(torch.arange(x.shape[1], device=x.device)[None] if places is None else places)

    def dropped(self, x: Tensor, y: Tensor) -> Tensor:
        """A block's output, or at times its input: computed all the same, so that every parameter has a gradient.

        Without one of some, data-parallel training stops; and nothing waits for the device to be told.
        """
        if not self.training or not self.config.layer_drop:
            return y
        return torch.where(torch.rand((), device=x.device) < self.config.layer_drop, x, y)


def init_weights(module: nn.Module) -> None:
    """N(0, 0.02) for weights of linear layers and embeddings, zero biases."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
