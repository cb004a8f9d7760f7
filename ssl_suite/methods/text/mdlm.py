"""MDLM: a language model by masked diffusion: tokens hidden at every rate, and found again."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.method import StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.random import uniform
from ssl_suite.core.tensor_parallel import part_of
from ssl_suite.core.term import Term
from ssl_suite.methods.text.corrupt import maskable
from ssl_suite.methods.text.masked_lm import MaskedLM
from ssl_suite.methods.text.vocabulary import vocabulary_loss


class MDLM(MaskedLM):
    """Masked diffusion (Sahoo et al. 2024, arXiv:2406.07524), the log-linear schedule.

    Of each row a share t of tokens, drawn from all of (0, 1], is replaced by [MASK], and their cross-entropies count
    1/t (equation 10): the mean over all tokens bounds the negative log-likelihood from above, and its exponential is a
    perplexity's bound. [MASK] itself is never predicted, tokens that are seen stay as they are, and the network is not
    told t. Special tokens are always seen.

    Args:
        encoder: a bidirectional text encoder.
        least: the smallest t.
        optim: how weights are updated.
    """

    def __init__(
        self,
        encoder: Encoder | str,
        least: float = 1e-3,
        optim: Optim = Optim(lr=3e-4, weight_decay=0.0, warmup_steps=2500, schedule="constant"),
    ) -> None:
        super().__init__(encoder, optim=optim)
        within("least", least, above=0, below=1)
        self.least = least

    def times(self, batch: TextBatch) -> Tensor:
        """(B,) t of each row: one number, and the others at even distances from it."""
        n = len(batch)
        steps = torch.arange(n, device=batch.seed.device) / n
        return self.least + (1 - self.least) * ((uniform(batch.seed[:1], 1, stream=5)[0] + steps) % 1)

    def step(self, batch: TextBatch) -> StepOutput:
        corrupted, chosen = self.corrupt(batch)
        at, losses = chosen.nonzero(as_tuple=True), dict[str, Term]()
        output = self.encoder.output_at(replace(batch, ids=corrupted), at, losses)
        never = torch.arange(len(self.head.bias), device=output.device) == self.mask_id
        bias = self.head.bias.masked_fill(never, -torch.inf)
        weight = 1 / self.times(batch)[at[0]]
        states, words = self.head.transform(output), self.encoder.tokens
        loss = vocabulary_loss(states, words.weight, bias, batch.ids[at], part_of(words), weight)
        term = Term(loss, maskable(batch, self.special).sum())
        return StepOutput.of({self.likelihood: term, **losses}, features=output)

    def forward_flops(self, length: int) -> float:
        return self.flops_at((1 + self.least) / 2, length)

    def counts(self, batch: TextBatch) -> dict[str, Tensor | float]:
        return {self.likelihood: maskable(batch, self.special).sum(), **dict.fromkeys(self.encoder.asks, 1.0)}

    def corrupt(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """Returns the ids with each token hidden with its row's probability t, and which those are, (B, T) bool."""
        hidden = uniform(batch.seed, batch.ids.shape[1], stream=6) < self.times(batch)[:, None]
        chosen = hidden & maskable(batch, self.special)
        return batch.ids.masked_fill(chosen, self.mask_id), chosen
