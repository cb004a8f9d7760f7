"""MultiTokenLM: predict the next few tokens at once, each by a head of its own."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.tensor_parallel import Plan, part_of
from ssl_suite.core.term import Term
from ssl_suite.encoders.masks import AttentionMask
from ssl_suite.encoders.transformer import Block, init_blocks
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.vocabulary import product_flops, vocabulary_loss


class MultiTokenLM(CausalLM):
    """Predict the next n tokens from those before them (Gloeckle et al. 2024, arXiv:2404.19737, section 2).

    Each head is a block, without experts, on what the trunk below the last block makes; norm and unembedding are
    shared. The encoder's own last block is the head of the next token, so that what is exported is a plain causal
    encoder. The logits of one head at a time take memory, a few rows of them, see `vocabulary_loss`; all count alike.

    Args:
        encoder: a causal text encoder.
        ahead: n.
        optim: how weights are updated.
    """

    likelihood = "token_loss"
    heads = ("further",)

    def __init__(
        self,
        encoder: Encoder | str,
        ahead: int = 4,
        optim: Optim = Optim(lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, warmup_ratio=0.01, final_lr=0.1),
    ) -> None:
        super().__init__(encoder, optim)
        within("ahead", ahead, low=2, high=64, whole=True)
        trunk = self.encoder.trunk.config
        if not trunk.layers or trunk.shared:
            raise UserError("MultiTokenLM needs an encoder of blocks that are not shared; its last one is a head.")
        self.further = nn.ModuleList(Block(replace(trunk, experts=0), trunk.layers - 1) for _ in range(ahead - 1))
        init_blocks(self.further, trunk.layers)
        self.take_heads()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        longest = getattr(self.data, "max_length", None)
        if longest is not None and len(self.further) + 1 >= longest:
            raise UserError(f"ahead is {len(self.further) + 1}, but rows have {longest} tokens at most; lower it.")

    def step(self, batch: TextBatch) -> StepOutput:
        encoded, trunk, words = self.encoder(batch), self.encoder.trunk, self.encoder.tokens
        below = encoded.states[-2]  # (B, T, D), what every head reads
        seen = trunk.masks(AttentionMask(True, None if batch.dense else batch.mask, batch.documents), below, None)[-1]
        terms, losses = {}, encoded.losses
        for k, name in enumerate(self.names, 1):
            at = self.predicted(batch, k).nonzero(as_tuple=True)
            states = encoded.states[-1][at] if k == 1 else trunk.norm(self.further[k - 2](below, seen, at=at))
            targets = batch.ids[at[0], at[1] + k]
            terms[name] = Term(vocabulary_loss(states, words.weight, None, targets, part_of(words)), len(targets))
        return StepOutput.of(terms | losses, features=encoded.pooled)

    def counts(self, batch: TextBatch) -> dict[str, Tensor | float]:
        counts = {name: self.predicted(batch, k).sum() for k, name in enumerate(self.names, 1)}
        return {**counts, **dict.fromkeys(self.encoder.asks, 1.0)}

    def tensor_plan(self, size: int) -> Plan:
        return Method.tensor_plan(self, size)

    def forward_flops(self, length: int) -> float:
        c, words = self.encoder.trunk.config, self.encoder.tokens.weight
        matrices = [p for p in self.further.parameters() if p.ndim == 2]
        heads = sum(product_flops(p, length) for p in matrices) + len(self.further) * 4 * length**2 * c.dim
        logits = sum(product_flops(words, length - k) for k in range(2, len(self.names) + 1))
        return super().forward_flops(length) + heads + logits

    @property
    def names(self) -> list[str]:
        """Of the terms: of the next token, and of those after it."""
        return [self.likelihood, *(f"token_{k}_loss" for k in range(2, len(self.further) + 2))]
