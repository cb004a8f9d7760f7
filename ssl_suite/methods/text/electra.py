"""Electra: a small masked language model replaces tokens, the encoder tells which ones."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.random import uniform
from ssl_suite.core.term import Term
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.tokenizer import special_ids, token_id
from ssl_suite.encoders.transformer import Places, Transformer
from ssl_suite.methods.text.corrupt import choose_positions, maskable
from ssl_suite.methods.text.vocabulary import draw, vocabulary_loss


class Electra(Method):
    """Detect replaced tokens (Clark et al. 2020, arXiv:2003.10555).

    The generator shares the encoder's embeddings, of words, positions and segments (section 3.2), through a projection
    to its own width; it learns by masked language modelling alone, as no gradient passes through its samples. Only the
    discriminator is kept.

    Args:
        encoder: the discriminator, a bidirectional text encoder.
        generator_size: width, feed-forward width and heads of the generator over the encoder's; 1/4 to 1/2 work best
            (section 3.2).
        rate: share of tokens the generator fills in; all of them are masked.
        weight: λ, of the discriminator's loss (section 3.2: 50, for its loss is the smaller one).
        optim: how weights are updated.
    """

    encoder: TextEncoder
    perplexity = True
    likelihood = "generator_loss"
    heads = ("discriminator", "generator")
    special: Tensor
    never: Tensor

    def __init__(
        self,
        encoder: Encoder | str,
        generator_size: float = 0.25,
        rate: float = 0.15,
        weight: float = 50.0,
        optim: Optim = Optim(lr=5e-4, eps=1e-6, weight_decay=0.01, warmup_ratio=0.01, schedule="linear"),
    ) -> None:
        super().__init__(encoder, optim)
        within("generator_size", generator_size, above=0)
        within("rate", rate, above=0, high=1)
        within("weight", weight, low=0)
        expect(self.encoder, "text", "Electra")
        if self.encoder.config.get("causal", True):
            raise UserError("Electra needs a bidirectional TextEncoder (causal: false).")
        self.rate, self.weight = rate, weight
        self.generator = Generator(self.encoder, generator_size)
        self.discriminator = DiscriminatorHead(self.encoder.dim)
        self.take_heads()
        self.register_buffer("special", torch.empty(0, dtype=torch.long), persistent=False)
        self.register_buffer("never", torch.empty(0), persistent=False)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        tokenizer = self.encoder.tokenizer
        self.special = torch.tensor(special_ids(tokenizer), device=self.device)
        self.mask_id = token_id(tokenizer, "mask")
        never = torch.zeros(self.encoder.tokens.num_embeddings, device=self.device)
        never[self.special] = never[tokenizer.get_vocab_size() :] = -torch.inf  # ids the generator never draws
        self.never = never

    def step(self, batch: TextBatch) -> StepOutput:
        chosen = choose_positions(maskable(batch, self.special), batch.seed, self.rate)
        at = chosen.nonzero(as_tuple=True)
        masked, targets = batch.ids.masked_fill(chosen, self.mask_id), batch.ids[at]
        embedded = self.encoder.look_up(masked, batch.segments, documents=batch.documents)
        states, words, bias = self.generator(embedded, batch, at), self.encoder.tokens.weight, self.generator.bias
        generator_loss = Term(vocabulary_loss(states, words, bias, targets), len(targets))

        filled = draw(states, words, bias + self.never, uniform(batch.seed, chosen.shape[1], stream=4)[at])
        ids = batch.ids.index_put(at, filled)
        real = batch.mask.nonzero(as_tuple=True)
        replaced = (ids != batch.ids)[real]  # a token drawn right counts as the original
        encoded = self.encoder(replace(batch, ids=ids))
        output = encoded.states[-1][real]  # (N, D)
        logits = self.discriminator(output)
        loss = F.binary_cross_entropy_with_logits(logits, replaced.to(logits.dtype), reduction="sum")
        terms = {
            "generator_loss": generator_loss,
            "discriminator_loss": Term(loss, len(replaced), self.weight),
        }
        return StepOutput(terms | encoded.losses, detection(logits > 0, replaced), output)

    def counts(self, batch: TextBatch) -> dict[str, Tensor | float]:
        chosen = choose_positions(maskable(batch, self.special), batch.seed, self.rate)
        asked = dict.fromkeys(self.encoder.asks, 1.0)
        return {"generator_loss": chosen.sum(), "discriminator_loss": batch.mask.sum(), **asked}


def detection(guess: Tensor, replaced: Tensor) -> dict[str, Tensor | Term]:
    """Share of replaced tokens, and how many of all, of the replaced and of the originals are told right."""
    right, new = (guess == replaced).float(), replaced.float()
    found = (right * new).sum() / new.sum().clamp(min=1)
    kept = (right * (1 - new)).sum() / (1 - new).sum().clamp(min=1)
    n = len(replaced)
    return {
        "replaced": Term(new.sum(), n),
        "accuracy": Term(right.sum(), n),
        "balanced_accuracy": Term((found + kept) / 2 * n, n),
    }


class Generator(nn.Module):
    """A narrower trunk over the encoder's embeddings, without experts, with a masked language model's head."""

    def __init__(self, encoder: TextEncoder, size: float) -> None:
        super().__init__()
        trunk, width = encoder.trunk.config, encoder.tokens.embedding_dim
        heads = max(1, round(trunk.heads * size))
        dim = max(1, round(trunk.dim * size / heads)) * heads
        ffn = None if trunk.ffn is None else round(trunk.ffn * size)
        self.project = nn.Linear(width, dim)
        self.trunk = Transformer(replace(trunk, dim=dim, heads=heads, ffn=ffn, experts=0))
        self.dense, self.norm = nn.Linear(dim, width), nn.LayerNorm(width, trunk.eps)
        self.bias = nn.Parameter(torch.zeros(encoder.tokens.num_embeddings))

    def forward(self, embedded: Tensor, batch: TextBatch, at: Places) -> Tensor:
        """(B, T, E) → (M, E) at the places `at`, what is compared with the word embedding."""
        mask = None if batch.dense else batch.mask
        output = self.trunk(self.project(embedded), mask, at=at, documents=batch.documents)[-1]
        return self.norm(F.gelu(self.dense(output)))


class DiscriminatorHead(nn.Module):
    """A hidden layer and a logit: greater than 0 where a token looks replaced."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dense, self.out = nn.Linear(dim, dim), nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) → (N,)."""
        return self.out(F.gelu(self.dense(x))).squeeze(-1)
