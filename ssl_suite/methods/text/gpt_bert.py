"""GPTBERT: one trunk that fills in masked tokens and predicts the next one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.random import uniform
from ssl_suite.core.tensor_parallel import part_of
from ssl_suite.core.term import Term
from ssl_suite.encoders.tokenizer import token_id
from ssl_suite.methods.text.causal_lm import followers
from ssl_suite.methods.text.mask import Mask
from ssl_suite.methods.text.masked_lm import MaskedLM
from ssl_suite.methods.text.vocabulary import encoder_flops, product_flops, vocabulary_loss


class GPTBERT(MaskedLM):
    """Masked next-token prediction beside causal language modelling (Charpentier and Samuel 2024, arXiv:2410.24159).

    A masked token is predicted by the state one place to its left, so that one network with one head is a masked and a
    causal language model: all that differs is who sees whom. Each row is read one way, drawn anew every epoch, and the
    two losses count as the shares of the rows; at least one row of a batch is of each kind. Validation reads every row
    both ways.

    The authors' network (disentangled relative positions, gates), its z-loss and the moving average of its weights are
    left out, a token's earlier masks do not count against it, and spans are of whole words, theirs of tokens.

    Args:
        encoder: a bidirectional text encoder with full attention.
        causal: share of the rows that are read from left to right alone.
        rate: share of tokens to predict in the other rows.
        final_rate: the share at the last step, reached linearly.
        val_rate: the same for validation.
        mask: what is masked together; the default is runs of one to three words, alike likely.
        optim: how weights are updated.
    """

    def __init__(
        self,
        encoder: Encoder | str,
        causal: float = 1 / 16,
        rate: float = 0.3,
        final_rate: float | None = 0.15,
        val_rate: float = 0.15,
        mask: Mask = Mask("span", p=1e-6, longest=3),
        optim: Optim = Optim(lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1, warmup_ratio=0.016, final_lr=0.1),
    ) -> None:
        super().__init__(encoder, rate, final_rate, val_rate, mask, optim=optim)
        within("causal", causal, low=0, high=1)
        if self.encoder.trunk.config.attention != "full":
            raise UserError(
                "GPTBERT needs an encoder with attention: full, whose rows may be read from the left alone."
            )
        self.causal, self.likelihood = causal, "masked_loss"

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.end_id = token_id(self.encoder.tokenizer, "end")

    def step(self, batch: TextBatch) -> StepOutput:
        causal = self.causal_rows(batch)
        if not self.training:  # every row both ways
            batch = batch._each(lambda tensor: torch.cat([tensor, tensor]))
            causal = torch.arange(len(batch), device=causal.device) >= len(causal)
        ids, *chosen = self.targets(batch, causal)
        found = [c.nonzero(as_tuple=True) for c in chosen]
        rows, places = (torch.cat(at) for at in zip(*found, strict=True))
        losses: dict[str, Term] = {}
        output = self.encoder.output_at(replace(batch, ids=ids), (rows, places), losses, causal)
        states, targets, words = self.head.transform(output), batch.ids[rows, places + 1], self.encoder.tokens
        counts = [len(at[0]) for at in found]
        terms = {
            name: Term(vocabulary_loss(x, words.weight, self.head.bias, y, part_of(words)), len(y), self.shares[name])
            for name, x, y in zip(self.shares, states.split(counts), targets.split(counts), strict=True)
        }
        return StepOutput.of(terms | losses, features=output)

    @property
    def shares(self) -> dict[str, float]:
        return {"masked_loss": 1 - self.causal, "causal_loss": self.causal}

    def causal_rows(self, batch: TextBatch) -> Tensor:
        """(B,) bool, round(causal · B) rows, but of each kind at least one where both are wanted."""
        n = len(batch)
        wanted = min(max(round(n * self.causal), self.causal > 0), n - (self.causal < 1))
        return uniform(batch.seed, 1, stream=7)[:, 0].argsort().argsort() < wanted

    def targets(self, batch: TextBatch, causal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what is read, (B, T) ids; and at which places the token after it is predicted, (B, T − 1) bool:
        because it is masked, and in causal rows."""
        corrupted, masked = self.corrupt(batch)
        causal = causal[:, None]
        return corrupted.where(~causal, batch.ids), masked[:, 1:] & ~causal, followers(batch, self.end_id) & causal

    def counts(self, batch: TextBatch) -> dict[str, Tensor | float]:
        _, *chosen = self.targets(batch, self.causal_rows(batch))
        counts = {name: places.sum() for name, places in zip(self.shares, chosen, strict=True)}
        return {**counts, **dict.fromkeys(self.encoder.asks, 1.0)}

    def forward_flops(self, length: int) -> float:
        predicted = length * ((1 - self.causal) * self.rate + self.causal)
        heads = product_flops(self.head.dense.weight, predicted) + product_flops(self.encoder.tokens.weight, predicted)
        return encoder_flops(self.encoder, length, round(predicted)) + heads
