"""Seq2Seq: say what a corrupted text was, or what is missing from it: T5, BART and MASS."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.data import Request
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.seq2seq import Seq2SeqBatch
from ssl_suite.core.term import Term
from ssl_suite.encoders.encoder_decoder import EncoderDecoder
from ssl_suite.methods.text.denoise import Denoise
from ssl_suite.methods.text.vocabulary import vocabulary_loss


class Seq2Seq(Method):
    """Say what a corrupted text was, or what it lacks (Raffel et al. 2020, arXiv:1910.10683).

    T5, BART (arXiv:1910.13461) and MASS (arXiv:1905.02450) are recipes of it, in configs/text. Losses of two objectives
    are of different tokens and say nothing about which is better: `ssl-suite bench -c bench/t5_objectives` does.

    Args:
        encoder: an `EncoderDecoder`.
        corruption: what is read and what is said.
        optim: how weights are updated.
    """

    encoder: EncoderDecoder
    perplexity = True

    def __init__(
        self,
        encoder: Encoder | str,
        corruption: Denoise = Denoise(),
        optim: Optim = Optim(lr=1e-3, weight_decay=0.0, warmup_ratio=0.02, schedule="linear"),
    ) -> None:
        super().__init__(encoder, optim)
        expect(self.encoder, "text", "Seq2Seq")
        if not isinstance(self.encoder, EncoderDecoder):
            raise UserError(f"Seq2Seq needs an EncoderDecoder; a {type(self.encoder).__name__} says nothing.")
        self.corruption = corruption

    def request(self) -> Request:
        return replace(super().request(), corruption=self.corruption)

    def step(self, batch: Seq2SeqBatch) -> StepOutput:
        encoded = self.encoder(batch)
        states, wanted = self.encoder.decode(batch, encoded), batch.wanted  # (B, U, D), (B, U)
        if batch.decoder.dense:
            states, wanted = states.flatten(0, 1), wanted.flatten()
        else:
            at = (wanted != IGNORE).nonzero(as_tuple=True)
            states, wanted = states[at], wanted[at]
        loss = Term(vocabulary_loss(states, self.encoder.words, None, wanted), len(wanted))
        return StepOutput(loss, features=encoded.pooled)

    def counts(self, batch: Seq2SeqBatch) -> dict[str, Tensor | float]:
        return {"loss": (batch.wanted != IGNORE).sum()}
