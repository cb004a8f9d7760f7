"""One transformer trunk for every token sequence: text, frames of speech, patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.errors import UserError
from ssl_suite.core.tensor_parallel import Columns, Plan, Rows
from ssl_suite.core.term import Term
from ssl_suite.encoders.experts import Experts
from ssl_suite.encoders.feed_forward import FeedForward
from ssl_suite.encoders.masks import AttentionMask
from ssl_suite.encoders.positions import BiasGate, RelativeBias, rotate
from ssl_suite.encoders.sparse import BlockMask, band, big_bird, near
from ssl_suite.encoders.trunk import TrunkConfig

Places = tuple[Tensor, ...]
"""Rows and positions of M chosen states, as `nonzero(as_tuple=True)` gives them."""
Mask = Tensor | BlockMask | None
"""What the queries of a layer see: all pairs (True = seen), or by blocks; None for what the trunk's kind says."""


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


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, c: TrunkConfig) -> None:
        super().__init__()
        self.width, self.causal, self.rotary, self.config = c.dim // c.heads, c.causal, c.positions == "rotary", c
        self.qkv, self.out = nn.Linear(c.dim, 3 * c.dim, c.bias), nn.Linear(c.dim, c.dim, c.bias)
        self.gate = BiasGate(c.dim, c.heads) if c.buckets else None

    def forward(
        self,
        x: Tensor,
        mask: Mask,
        cache: KVCache | None = None,
        layer: int = 0,
        at: Places | None = None,
        places: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        t = x.shape[1]
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.width)).permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
        start = cache.seen(layer) if cache is not None else 0
        if self.rotary:
            c = self.config
            base = c.rotary_base if c.sees_all(layer) else c.local_rotary_base
            q, k = rotate(q, start, places, base), rotate(k, start, places, base)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        causal = self.causal and mask is None and t > 1
        if causal and start:  # the kernel's own flag would align the piece with the first key
            mask, causal = torch.ones(t, start + t, dtype=torch.bool, device=x.device).tril(start), False
        if self.gate is not None and bias is not None:
            logits = self.gate(x, bias).to(q)
            assert not isinstance(mask, BlockMask), "TrunkConfig refuses it"
            mask = logits if mask is None else logits.masked_fill(~mask, -torch.inf)
        if isinstance(mask, BlockMask):
            y = mask.attend(q, k, v)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        y = y.transpose(1, 2).flatten(2)
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


class Block(nn.Module):
    """Attention and feed-forward, each on a residual branch."""

    def __init__(self, c: TrunkConfig, layer: int = 0) -> None:
        super().__init__()
        self.pre = c.norm == "pre"
        self.attention = Attention(c)
        self.feed_forward: nn.Module = (
            Experts(c) if c.has_experts(layer) else FeedForward(c.dim, c.hidden, c.activation, c.bias)
        )
        self.norm1 = nn.Identity() if layer == 0 and c.normed else c.norm_layer()
        self.norm2 = c.norm_layer()
        self.dropout = Dropout(c.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Mask,
        cache: KVCache | None = None,
        layer: int = 0,
        at: Places | None = None,
        places: Tensor | None = None,
        bias: Tensor | None = None,
        real: Tensor | None = None,
        losses: dict[str, Term] | None = None,
    ) -> Tensor:
        kept = x if at is None else x[at]
        more = (real if at is None else None, losses) if isinstance(self.feed_forward, Experts) else ()
        if self.pre:
            x = kept + self.dropout(self.attention(self.norm1(x), mask, cache, layer, at, places, bias))
            return x + self.dropout(self.feed_forward(self.norm2(x), *more))
        x = self.norm1(kept + self.dropout(self.attention(x, mask, cache, layer, at, places, bias)))
        return self.norm2(x + self.dropout(self.feed_forward(x, *more)))


class Transformer(nn.Module):
    """The trunk: embedded sequence → all its states.

    Initialisation is GPT-2's: N(0, 0.02), the two projections onto the residual stream scaled by 1/√(2·layers),
    biases zero.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        blocks = min(1, config.layers) if config.shared else config.layers
        self.blocks = nn.ModuleList(Block(config, i) for i in range(blocks))
        self.norm = config.norm_layer() if config.norm == "pre" else nn.Identity()
        self.bias = RelativeBias(config.heads, config.buckets, config.reach) if config.buckets else None
        init_blocks(self, config.layers)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        at: Places | None = None,
        documents: Tensor | None = None,
        places: Tensor | None = None,
        losses: dict[str, Term] | None = None,
        causal: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Runs the blocks.

        Args:
            x: (B, T, D).
            mask: (B, T) True = real, or None where all are real.
            cache: of a causal trunk, for generation one piece at a time.
            at: the M positions whose output is wanted; the last block skips what only the others would need.
            documents: (B, T) which document of its row each position belongs to; none sees another.
            places: (B, T) where each position stands in a whole of which it is a part, in ascending order.
            losses: what the experts ask to be added to the loss is put here.
            causal: (B,) bool, rows of a bidirectional trunk whose positions see none after them; needs `mask`.

        Returns:
            layers + 1 tensors (B, T, D): the input, the output of each block; the last one normalised, and (M, D)
            where `at` is given.
        """
        rows = self.config.causal if causal is None else causal
        seen = self.masks(AttentionMask(rows, mask, documents), x, places)
        bias = self.distances(x, places)
        states, last = [x], self.config.layers - 1
        for i in range(self.config.layers):
            here = at if i == last else None
            y = self.blocks[i % len(self.blocks)](states[-1], seen[i], cache, i, here, places, bias, mask, losses)
            states.append(self.dropped(states[-1] if here is None else states[-1][here], y))
        states[-1] = self.norm(states[-1])
        return tuple(states)

    def masks(self, row: AttentionMask, x: Tensor, places: Tensor | None) -> list[Mask]:
        """What each layer sees of (B, T, D), by blocks where that is less than all.

        Raises:
            UserError: only some of the positions are there, and blocks would have to be of all.
        """
        c, layers, t = self.config, range(self.config.layers), x.shape[1]
        if c.attention == "blocks":
            if places is not None:
                raise UserError("attention: blocks reads every position; it cannot encode the visible ones alone.")
            if t > (5 + c.random_blocks) * c.window:
                return [big_bird(row, t, c.heads, c.window, c.random_blocks, i, x.device) for i in layers]
        whole = row.tensor()
        if c.attention != "local":
            return [whole] * c.layers
        if places is None and t > 3 * c.window:
            local: Mask = near(row, t, c.window, x.device)
        else:
            local = band(whole, torch.arange(t, device=x.device)[None] if places is None else places, c.window)
        return [whole if c.sees_all(i) else local for i in layers]

    def distances(self, x: Tensor, places: Tensor | None) -> Tensor | None:
        """(1 or B, H, T, T) what the blocks gate, or None where the trunk has no relative bias."""
        if self.bias is None:
            return None
        return self.bias(torch.arange(x.shape[1], device=x.device)[None] if places is None else places)

    def tensor_plan(self, size: int) -> Plan:
        """Attention is cut by its heads, the feed-forward layer by its hidden units (arXiv:1909.08053, section 3)."""
        c = self.config
        if c.buckets or c.attention == "blocks" or c.experts:
            raise UserError("Relative bias (buckets), attention by blocks and experts are not cut: trainer/fsdp.yaml.")
        for name, n in (("heads", c.heads), ("ffn", c.hidden)):
            if n % size:
                raise UserError(f"tensor_parallel {size} must divide the encoder's {name}, which is {n}.")
        gates = 2 if c.gated else 1
        plan: Plan = {"attention.qkv": Columns(3), "attention.out": Rows()}
        plan |= {"feed_forward.up": Columns(gates), "feed_forward.down": Rows()}
        return {f"blocks.*.{name}": style for name, style in plan.items()} if c.layers else {}

    def dropped(self, x: Tensor, y: Tensor) -> Tensor:
        """A block's output, or at times its input: computed all the same, so that every parameter has a gradient.

        Without one of some, data-parallel training stops; and nothing waits for the device to be told.
        """
        if not self.training or not self.config.layer_drop:
            return y
        return torch.where(torch.rand((), device=x.device) < self.config.layer_drop, x, y)


def init_blocks(module: nn.Module, layers: int) -> None:
    """`init_weights`, and projections onto the residual stream of so many layers scaled by 1/√(2·layers)."""
    module.apply(init_weights)
    for name, weight in module.named_parameters():
        if name.endswith(("attention.out.weight", "feed_forward.down.weight", "feed_forward.down")):
            nn.init.normal_(weight, std=0.02 / (2 * layers) ** 0.5)


def init_weights(module: nn.Module) -> None:
    """N(0, 0.02) for weights of linear layers and embeddings, zero biases."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
