"""TextEncoder: token and position embeddings under the transformer trunk; BERT, ALBERT and GPT by config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.check import within
from ssl_suite.core.choices import ChoiceBatch
from ssl_suite.core.encoder import Encoded, Encoder, Tokens, masked_mean
from ssl_suite.core.errors import UserError
from ssl_suite.core.tensor_parallel import Plan, Vocabulary
from ssl_suite.core.term import Term
from ssl_suite.encoders.experts import LOSSES
from ssl_suite.encoders.feed_forward import Activation
from ssl_suite.encoders.likelihood import token_log_likelihoods
from ssl_suite.encoders.masks import positions_within
from ssl_suite.encoders.transformer import Dropout, KVCache, Places, Transformer, init_weights
from ssl_suite.encoders.trunk import TrunkConfig


class TextEncoder(Encoder):
    """A transformer over token ids.

    Args:
        vocab_size: rows of the embedding; at least the tokenizer's size.
        dim: width.
        layers: blocks; 0 leaves the embeddings alone (a bag of words under a `mean` readout).
        heads: attention heads.
        max_length: longest sequence for learned positions.
        causal: GPT rather than BERT.
        norm: pre or post.
        positions: learned, rotary or none.
        activation: relu, gelu, gelu_tanh, geglu, geglu_tanh or swiglu (arXiv:2002.05202).
        ffn: feed-forward width; default 4 · dim.
        dropout: on embeddings and residual branches.
        eps: of the layer norms.
        segments: number of segment (token type) embeddings; 0 for none.
        pool: `mean` over tokens, `cls` (first), or `last` (last real one, for causal trunks).
        shared: one block applied `layers` times (ALBERT).
        embedding_dim: width of the embeddings, mapped to `dim` by a linear layer (ALBERT, ELECTRA); None for `dim`.
        embedding_norm: whether a norm follows the embeddings; default: in post-norm trunks. In a pre-norm trunk it
            stands for that of the first attention (ModernBERT, arXiv:2412.13663, section 2.1.1).
        bias: whether linear layers and norms add one.
        rms_norm: norms divide by the root mean square alone.
        rotary_base: of rotary positions: the greater, the slower they turn.
        local_rotary_base: of those in local layers.
        attention: full; local, `window` positions on each side, but all in every `global_every`th layer (ModernBERT);
            blocks of `window` positions, `random_blocks` of them drawn (BigBird, arXiv:2007.14062).
        window: see `attention`.
        global_every: see `attention`.
        random_blocks: see `attention`.
        experts: feed-forward layers among which each token has one (Switch Transformer, arXiv:2101.03961); 0 for none.
        experts_every: in every so many blocks.
        capacity: tokens an expert takes in training, as a multiple of an even share.
        balance: weight of the loss that evens the experts out.
        router_z: weight of the router's z-loss.
    """

    modality = "text"

    def __init__(
        self,
        vocab_size: int = 8192,
        dim: int = 256,
        layers: int = 4,
        heads: int = 4,
        max_length: int = 512,
        causal: bool = False,
        norm: Literal["pre", "post"] = "pre",
        positions: Literal["learned", "rotary", "none"] = "learned",
        activation: Activation = "gelu",
        ffn: int | None = None,
        dropout: float = 0.1,
        eps: float = 1e-5,
        segments: int = 0,
        pool: Literal["mean", "cls", "last"] = "mean",
        shared: bool = False,
        embedding_dim: int | None = None,
        embedding_norm: bool | None = None,
        bias: bool = True,
        rms_norm: bool = False,
        rotary_base: float = 1e4,
        local_rotary_base: float = 1e4,
        attention: Literal["full", "local", "blocks"] = "full",
        window: int = 64,
        global_every: int = 3,
        random_blocks: int = 3,
        experts: int = 0,
        experts_every: int = 2,
        capacity: float = 1.25,
        balance: float = 0.01,
        router_z: float = 0.0,
    ) -> None:
        super().__init__()
        if causal and embedding_dim:
            raise UserError("A causal encoder predicts with its own embedding, of width dim; leave embedding_dim out.")
        within("vocab_size", vocab_size, low=1, whole=True)
        within("max_length", max_length, low=1, whole=True)
        within("segments", segments, low=0, whole=True)
        if embedding_dim is not None:
            within("embedding_dim", embedding_dim, low=1, whole=True)
        embedding_norm = norm == "post" if embedding_norm is None else embedding_norm
        trunk = TrunkConfig(
            dim,
            layers,
            heads,
            causal,
            norm,
            positions,
            activation,
            ffn,
            dropout,
            eps,
            shared,
            attention=attention,
            window=window,
            global_every=global_every,
            random_blocks=random_blocks,
            rotary_base=rotary_base,
            local_rotary_base=local_rotary_base,
            bias=bias,
            rms_norm=rms_norm,
            normed=embedding_norm and norm == "pre" and not embedding_dim,
            experts=experts,
            experts_every=experts_every,
            capacity=capacity,
            balance=balance,
            router_z=router_z,
        )
        self.asks = LOSSES if experts else ()
        width = embedding_dim or dim
        self.dim, self.num_states, self.max_length, self.pool = dim, layers + 1, max_length, pool
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(max_length, width) if positions == "learned" else None
        self.longest = max_length if positions == "learned" else None
        self.segments = nn.Embedding(segments, width) if segments else None
        self.embedding_norm = replace(trunk, dim=width, heads=1).norm_layer() if embedding_norm else nn.Identity()
        self.project = nn.Linear(embedding_dim, dim) if embedding_dim else None
        self.dropout = Dropout(dropout)
        self.class_token = not causal
        self.apply(init_weights)
        self.trunk = Transformer(trunk)

    def look_up(
        self, ids: Tensor, segments: Tensor | None = None, start: int = 0, documents: Tensor | None = None
    ) -> Tensor:
        """(B, T) ids, the first at position `start`, or each at its place in its document → (B, T, E).

        E is `embedding_dim`; `enter` makes it the width of the trunk.
        """
        t = ids.shape[1]
        x = self.tokens(ids)
        if self.positions is not None:
            if start + t > self.max_length:
                raise UserError(f"A sequence of {start + t} tokens is longer than max_length {self.max_length}.")
            if documents is None:
                x = x + self.positions.weight[start : start + t]
            else:
                x = x + self.positions(positions_within(documents))
        if self.segments is not None:
            alike = segments is None or self.segments.num_embeddings == 1  # RoBERTa does not tell them apart
            x = x + self.segments(torch.zeros_like(ids) if alike else segments)
        return self.dropout(self.embedding_norm(x))

    def enter(self, embedded: Tensor) -> Tensor:
        """(B, T, E) → (B, T, D), what the first block reads."""
        return embedded if self.project is None else self.project(embedded)

    def embed(self, batch: TextBatch, start: int = 0) -> Tokens:
        """Tokens, the first of them at position `start`."""
        x = self.enter(self.look_up(batch.ids, batch.segments, start, batch.documents))
        return Tokens(x, batch.mask, documents=batch.documents, dense=batch.dense)

    def contextualise(self, tokens: Tokens, cache: KVCache | None = None) -> Encoded:
        mask = None if tokens.dense or cache is not None else tokens.mask
        losses: dict[str, Term] = {}
        documents, places = tokens.documents, tokens.places
        states = self.trunk(tokens.values, mask, cache, documents=documents, places=places, losses=losses)
        return Encoded(states, tokens.mask, self._pool(states[-1], tokens.mask), losses=losses)

    def forward(self, batch: TextBatch, cache: KVCache | None = None) -> Encoded:
        return self.contextualise(self.embed(batch, cache.length if cache else 0), cache)

    def output_at(
        self, batch: TextBatch, at: Places, losses: dict[str, Term] | None = None, causal: Tensor | None = None
    ) -> Tensor:
        """(M, D); `causal`, (B,) bool: rows of which no token sees those after it."""
        if not self.trunk.blocks:
            return super().output_at(batch, at, losses)
        tokens = self.embed(batch)
        mask = None if tokens.dense and causal is None else tokens.mask
        return self.trunk(tokens.values, mask, at=at, documents=tokens.documents, losses=losses, causal=causal)[-1]

    @torch.no_grad()
    def log_likelihoods(self, batch: ChoiceBatch) -> Tensor:
        """(N,) Σ log p of the scored tokens of each sequence; logits are made at their places only."""
        rows, places = batch.scored.nonzero(as_tuple=True)
        states = self.output_at(batch, (rows, places - 1))
        log_p = token_log_likelihoods(states, self.tokens.weight, batch.ids[rows, places])
        return torch.zeros(len(batch.ids), device=log_p.device).index_add_(0, rows, log_p)

    def _pool(self, output: Tensor, mask: Tensor) -> Tensor:
        if self.pool == "mean":
            return masked_mean(output, mask)
        if self.pool == "cls":
            return output[:, 0]
        last = (mask.sum(1) - 1).clamp(min=0)
        return output[torch.arange(len(output), device=output.device), last]

    def blocks(self) -> list[nn.Module]:
        return list(self.trunk.blocks)

    def tensor_plan(self, size: int) -> Plan:
        if self.tokens.num_embeddings % size:
            raise UserError(
                f"tensor_parallel {size} must divide the encoder's vocab_size, which is {self.tokens.num_embeddings}; "
                "it may have more rows than its tokenizer has words."
            )
        return {"tokens": Vocabulary()} | {f"trunk.{n}": style for n, style in self.trunk.tensor_plan(size).items()}

    def feed_forwards(self) -> list[nn.Module]:
        return [block.feed_forward for block in self.trunk.blocks]  # type: ignore[misc]

    def layers(self) -> list[list[nn.Parameter]]:
        """Embeddings, then each block; a shared block is one layer."""
        embeddings: list[Any] = [self.tokens, self.positions, self.segments, self.embedding_norm, self.project]
        first = [p for m in embeddings if m is not None for p in m.parameters()]
        layers = [first, *(list(b.parameters()) for b in self.trunk.blocks)]
        layers[-1] += self.trunk.norm.parameters()
        return layers
