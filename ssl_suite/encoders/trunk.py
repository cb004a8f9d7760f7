"""The shape of a transformer trunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError
from ssl_suite.encoders.feed_forward import GATES, Activation
from ssl_suite.encoders.rms_norm import RMSNorm


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
        activation: of the feed-forward layer, see `FeedForward`.
        ffn: width of the feed-forward layer; default 4 · dim (8/3 · dim for the gated ones).
        dropout: of the residual branches; attention weights are not dropped, so that
            fused kernels serve on every device.
        eps: of the layer norms.
        shared: one block applied `layers` times (ALBERT, arXiv:1909.11942, section 3.1).
        layer_drop: how often a block is passed by while it trains (arXiv:1909.11556).
        buckets: of the gated relative bias, see `RelativeBias`; 0: there is none.
        reach: of that bias.
        attention: what a position sees: full, all; local, those at most `window` away, but all in every
            `global_every`th layer, the first among them (ModernBERT, arXiv:2412.13663, section 2.1.2); blocks, those of
            a few blocks of `window` positions (BigBird, arXiv:2007.14062): the row's first and last, three around it
            and `random_blocks` drawn ones. Local layers and blocks cost time linear in the length.
        window: of local and blocks.
        global_every: of local.
        random_blocks: of blocks.
        rotary_base: of rotary positions, see `rotate`.
        local_rotary_base: of those in local layers.
        bias: whether linear layers and layer norms add one.
        rms_norm: norms divide by the root mean square alone (arXiv:1910.07467).
        normed: what comes in is normalised: the first block of a pre-norm trunk has no norm before its attention.
        experts: feed-forward layers among which each token has one, see `Experts`; 0: there is one for all.
        experts_every: in every so many blocks; in the others there is one for all.
        capacity: tokens an expert takes in training, as a multiple of an even share.
        balance: weight of the loss that evens the experts out (arXiv:2101.03961, equation 4).
        router_z: weight of the router's z-loss (arXiv:2202.08906, equation 5).
        router_jitter: in training the router reads its input times U(1 − this, 1 + this).
    """

    dim: int
    layers: int
    heads: int
    causal: bool = False
    norm: Literal["pre", "post"] = "pre"
    positions: Literal["learned", "rotary", "none"] = "learned"
    activation: Activation = "gelu"
    ffn: int | None = None
    dropout: float = 0.1
    eps: float = 1e-5
    shared: bool = False
    layer_drop: float = 0.0
    buckets: int = 0
    reach: int = 800
    attention: Literal["full", "local", "blocks"] = "full"
    window: int = 64
    global_every: int = 3
    random_blocks: int = 3
    rotary_base: float = 1e4
    local_rotary_base: float = 1e4
    bias: bool = True
    rms_norm: bool = False
    normed: bool = False
    experts: int = 0
    experts_every: int = 2
    capacity: float = 1.25
    balance: float = 0.01
    router_z: float = 0.0
    router_jitter: float = 0.01

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
        for name, low in (("window", 1), ("global_every", 1), ("random_blocks", 0)):
            within(name, getattr(self, name), low=low, whole=True)
        for name in ("rotary_base", "local_rotary_base"):
            within(name, getattr(self, name), above=1)
        within("experts", self.experts, low=0, whole=True)
        within("experts_every", self.experts_every, low=1, whole=True)
        within("capacity", self.capacity, above=0)
        for name in ("balance", "router_z"):
            within(name, getattr(self, name), low=0)
        within("router_jitter", self.router_jitter, low=0, below=1)
        if self.experts and (self.dim % 8 or self.hidden % 8):
            raise UserError(f"experts need widths that 8 divides; dim is {self.dim} and ffn {self.hidden}.")
        if self.experts and self.shared:
            raise UserError("experts are of single blocks; leave shared false.")
        if self.experts and not self.expert_layers:
            raise UserError(f"experts_every ({self.experts_every}) leaves no block of {self.layers} with experts.")
        if self.attention != "full" and (self.causal or self.buckets):
            has = "is causal" if self.causal else "has a relative bias (buckets)"
            raise UserError(
                f"attention: {self.attention} is for trunks that see both sides by dots alone; this one {has}."
            )

    @property
    def gated(self) -> bool:
        return self.activation in GATES

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layer."""
        return self.ffn or (int(self.dim * 8 / 3) if self.gated else 4 * self.dim)

    def has_experts(self, layer: int) -> bool:
        return self.experts > 0 and (layer + 1) % self.experts_every == 0

    @property
    def expert_layers(self) -> int:
        return sum(map(self.has_experts, range(self.layers)))

    def sees_all(self, layer: int) -> bool:
        """Whether every position of a layer may see every other."""
        return self.attention == "full" or (self.attention == "local" and layer % self.global_every == 0)

    def norm_layer(self) -> nn.Module:
        return RMSNorm(self.dim, self.eps) if self.rms_norm else nn.LayerNorm(self.dim, self.eps, bias=self.bias)
