"""Blocks of encoder–decoders: attention on the states themselves and on a memory, as T5 and as BART have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.check import within
from ssl_suite.encoders.biased_attention import biased_attention, fits
from ssl_suite.encoders.feed_forward import Activation, FeedForward
from ssl_suite.encoders.positions import RelativeBias
from ssl_suite.encoders.rms_norm import RMSNorm
from ssl_suite.encoders.transformer import Dropout, KVCache

Shape = Literal["t5", "bart"]


@dataclass(frozen=True)
class StackConfig:
    """Shape of one of the two stacks.

    What is unusual in T5 (arXiv:1910.10683, section 2.1, as released): norms before each branch that only scale, no
    biases, logits that are not divided by √d but get a bias for each distance, the same in all layers. BART
    (arXiv:1910.13461, section 2.1) is the original transformer with GELU.

    Args:
        dim: width D.
        layers: number of blocks.
        heads: attention heads H.
        head_dim: width d of each; H · d need not be D.
        ffn: width of the feed-forward layer.
        shape: t5 or bart.
        activation: of the feed-forward layer; the gated ones are arXiv:2002.05202's.
        dropout: of the residual branches.
        eps: of the norms.
        decodes: position t sees positions ≤ t only, and the memory.
        buckets: of T5's distances.
        reach: the distance from which on all are one.
    """

    dim: int
    layers: int
    heads: int
    head_dim: int
    ffn: int
    shape: Shape
    activation: Activation
    dropout: float
    eps: float
    decodes: bool = False
    buckets: int = 32
    reach: int = 128

    @property
    def t5(self) -> bool:
        return self.shape == "t5"

    def norm(self) -> nn.Module:
        return RMSNorm(self.dim, self.eps) if self.t5 else nn.LayerNorm(self.dim, self.eps)

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        return nn.Linear(inputs, outputs, bias=not self.t5)


@dataclass(eq=False)
class Seen:
    """Who sees whom, for every layer of a stack.

    Attributes:
        own: (1 or B, 1 or H, T, T) for SDPA: True = seen, or logits to add; None: the flag says it all, or all is seen.
        causal: the kernel's own flag.
        memory: (B, 1, 1 or U, T) True = seen by the decoder; None: all of the memory is.
    """

    own: Tensor | None = None
    causal: bool = False
    memory: Tensor | None = None


class DecoderCache:
    """Keys and values, layer by layer, of the positions a decoder has seen and of the memory."""

    def __init__(self) -> None:
        self.own = KVCache()
        self.memory: list[tuple[Tensor, Tensor]] = []

    def select(self, rows: Tensor) -> None:
        """Goes on with these rows of the batch; beams of one input share its memory, so that stays."""
        self.own.layers = [(k[rows], v[rows]) for k, v in self.own.layers]


class Distances(RelativeBias):
    """T5's bias of logits: as `RelativeBias`, or, in a decoder, all buckets for what came before.

    Args:
        heads: H.
        buckets: of distances.
        reach: the distance from which on all are one.
        causal: whether nothing that follows is seen.
    """

    def __init__(self, heads: int, buckets: int, reach: int, causal: bool) -> None:
        super().__init__(heads, buckets, reach)
        if causal:  # whose buckets are all for one sign
            within("reach", reach, above=buckets // 2, whole=True)
        self.causal = causal

    def buckets(self, distance: Tensor) -> Tensor:
        one_sign = self.table.num_embeddings // (1 if self.causal else 2)
        exact = one_sign // 2
        size = (-distance).clamp(min=0) if self.causal else distance.abs()
        share = (size.clamp(min=1).float() / exact).log() / math.log(self.reach / exact)
        wide = (exact + (share * (one_sign - exact)).long()).clamp(max=one_sign - 1)
        bucket = torch.where(size < exact, size, wide)
        return bucket if self.causal else bucket + one_sign * (distance > 0)

    def between(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(B, U) places of queries and (B, T) of keys → (B, H, U, T)."""
        return self.table(self.buckets(keys[:, None, :] - queries[:, :, None])).permute(0, 3, 1, 2)


class SelfAttention(nn.Module):
    """Attention of a sequence on itself, queries, keys and values from one fused projection."""

    def __init__(self, c: StackConfig) -> None:
        super().__init__()
        self.heads, self.scale = c.heads, 1.0 if c.t5 else None
        inner = c.heads * c.head_dim
        self.qkv, self.out = c.linear(c.dim, 3 * inner), c.linear(inner, c.dim)

    def forward(self, x: Tensor, seen: Seen, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, H, d)
        if cache is None and self.scale == 1.0 and seen.own is not None and fits(qkv, seen.own):
            return self.out(biased_attention(qkv, seen.own))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        y = F.scaled_dot_product_attention(q, k, v, seen.own, is_causal=seen.causal, scale=self.scale)
        return self.out(y.transpose(1, 2).flatten(2))

    def matrices(self) -> dict[Tensor, int]:
        return {self.qkv.weight: 3, self.out.weight: 1}


class CrossAttention(nn.Module):
    """Attention of a decoder on what the encoder made."""

    def __init__(self, c: StackConfig) -> None:
        super().__init__()
        self.heads, self.scale = c.heads, 1.0 if c.t5 else None
        inner = c.heads * c.head_dim
        self.q, self.kv, self.out = c.linear(c.dim, inner), c.linear(c.dim, 2 * inner), c.linear(inner, c.dim)

    def keys_and_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) → two of (B, H, T, d)."""
        k, v = self.kv(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return k, v

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """Reads the memory's keys and values.

        Several rows of (B·n, U, D) may share one of the memory's B: beams, of which each has one position then. They
        are asked together, as n positions.
        """
        k, v = memory
        rows = len(x)
        q = self.q(x.view(len(k), -1, x.shape[-1])).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, mask, scale=self.scale)
        return self.out(y.transpose(1, 2).flatten(2)).view(rows, -1, x.shape[-1])

    def matrices(self) -> dict[Tensor, int]:
        return {self.q.weight: 1, self.kv.weight: 2, self.out.weight: 1}


class Seq2SeqBlock(nn.Module):
    """Attention, in a decoder attention on the memory, and feed-forward, each on a residual branch."""

    def __init__(self, c: StackConfig) -> None:
        super().__init__()
        self.pre = c.t5
        self.attention, self.norm1 = SelfAttention(c), c.norm()
        self.cross = CrossAttention(c) if c.decodes else None
        self.norm_cross = c.norm() if c.decodes else nn.Identity()
        self.feed_forward, self.norm2 = FeedForward(c.dim, c.ffn, c.activation, not c.t5), c.norm()
        self.dropout = Dropout(c.dropout)

    def branch(self, x: Tensor, norm: nn.Module, inner: Callable[[Tensor], Tensor]) -> Tensor:
        """x plus what `inner` makes of it, normalised before or after."""
        if self.pre:
            return x + self.dropout(inner(norm(x)))
        return norm(x + self.dropout(inner(x)))

    def forward(
        self, x: Tensor, seen: Seen, memory: Tensor | None = None, cache: DecoderCache | None = None, layer: int = 0
    ) -> Tensor:
        own = cache.own if cache is not None else None
        x = self.branch(x, self.norm1, lambda y: self.attention(y, seen, own, layer))
        if (cross := self.cross) is not None:
            keys_and_values = self._memory(cross, memory, cache, layer)
            x = self.branch(x, self.norm_cross, lambda y: cross(y, keys_and_values, seen.memory))
        return self.branch(x, self.norm2, self.feed_forward)

    def _memory(
        self, cross: CrossAttention, memory: Tensor | None, cache: DecoderCache | None, layer: int
    ) -> tuple[Tensor, Tensor]:
        """The memory's keys and values, made once where there is a cache."""
        if cache is not None and layer < len(cache.memory):
            return cache.memory[layer]
        assert memory is not None, "a decoder reads what the encoder made"
        made = cross.keys_and_values(memory)
        if cache is not None:
            cache.memory.append(made)
        return made


class Stack(nn.Module):
    """The blocks of an encoder, or of a decoder.

    Weights are drawn as T5's released code draws them, so that logits start small though nothing divides them: each
    matrix by its fan-in, queries by √d more. BART's are N(0, 0.02).
    """

    def __init__(self, c: StackConfig) -> None:
        super().__init__()
        self.config = c
        self.blocks = nn.ModuleList(Seq2SeqBlock(c) for _ in range(c.layers))
        self.norm = c.norm() if c.t5 else nn.Identity()
        self.distances = Distances(c.heads, c.buckets, c.reach, c.decodes) if c.t5 else None
        self.apply(self._draw)
        if self.distances is not None:
            nn.init.normal_(self.distances.table.weight, std=c.dim**-0.5)

    @torch.no_grad()
    def _draw(self, module: nn.Module) -> None:
        c = self.config
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5 if c.t5 else 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif c.t5 and isinstance(module, SelfAttention):
            module.qkv.weight[: c.heads * c.head_dim] *= c.head_dim**-0.5
        elif c.t5 and isinstance(module, CrossAttention):
            module.q.weight *= c.head_dim**-0.5

    def forward(
        self, x: Tensor, seen: Seen, memory: Tensor | None = None, cache: DecoderCache | None = None
    ) -> tuple[Tensor, ...]:
        """(B, T, D) → layers + 1 states, the last of them normalised."""
        states = [x]
        for layer, block in enumerate(self.blocks):
            states.append(block(states[-1], seen, memory, cache, layer))
        states[-1] = self.norm(states[-1])
        return tuple(states)

    def sight(
        self,
        mask: Tensor | None,
        size: int,
        places: Tensor | None,
        start: int = 0,
        device: torch.device | None = None,
    ) -> Seen:
        """What the positions of this stack see of one another.

        Args:
            mask: (B, 1, T or 1, T) bool, causality included; None: all, or in a decoder all that came before.
            size: T.
            places: (B, T), where each position stands; None: one after the other from `start`.
            start: how many a cache holds; the positions see those too.
            device: of the states.
        """
        causal = self.config.decodes
        if self.distances is None:
            if start and causal and size > 1 and mask is None:
                mask = torch.ones(size, start + size, dtype=torch.bool, device=device).tril(start)
            return Seen(mask, causal and mask is None and size > 1)
        keys = torch.arange(start + size, device=device)[None] if places is None else places
        logits = self.distances.between(keys[:, start:] if places is None else keys, keys)
        if mask is None and causal:
            mask = torch.ones(size, start + size, dtype=torch.bool, device=device).tril(start)
        return Seen(logits if mask is None else logits.masked_fill(~mask, -torch.inf))
