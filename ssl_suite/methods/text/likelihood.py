"""The likelihood of token sequences under a causal encoder, and perplexity over whole documents."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import SumMetric

from ssl_suite.core.choices import ChoiceBatch
from ssl_suite.core.data import Request
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.module import Evaluation
from ssl_suite.core.optim import Optim
from ssl_suite.core.outcomes import Outcome
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.methods.text.vocabulary import token_log_likelihoods


@torch.no_grad()
def log_likelihoods(encoder: TextEncoder, batch: ChoiceBatch) -> Tensor:
    """(N,) Σ log p of the scored tokens of each sequence; logits are made at their places only."""
    encoder.eval()
    rows, places = batch.scored.nonzero(as_tuple=True)
    states = encoder.output_at(batch, (rows, places - 1))
    log_p = token_log_likelihoods(states, encoder.tokens.weight, batch.ids[rows, places])
    return torch.zeros(len(batch.ids), device=log_p.device).index_add_(0, rows, log_p)


class Scorer(Evaluation):
    """Base of what asks a frozen causal encoder for likelihoods.

    Args:
        encoder: folder or URI of a causal text encoder with its tokenizer.
    """

    encoder: TextEncoder

    def __init__(self, encoder: Encoder | str) -> None:
        super().__init__(encoder, Optim())
        loaded, name = self.encoder, type(self).__name__
        expect(loaded, "text", name)
        if not isinstance(loaded, TextEncoder) or not loaded.config.get("causal"):
            raise UserError(f"{name} needs a causal encoder, as CausalLM makes; this one sees what it would predict.")
        loaded.requires_grad_(False).eval()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            raise UserError(f"{type(self).__name__} trains nothing; use `ssl-suite test` with the same options.")
        length, window = getattr(self.data, "max_length", 0), self.encoder.max_length
        if self.encoder.positions is not None and length > window:
            raise UserError(f"data.max_length is {length}, the encoder reads {window} tokens; lower it to that.")
        vocab_size = self.encoder.config.get("vocab_size")
        self.data.serve(Request(tokenizer=self.encoder.tokenizer, vocab_size=vocab_size))


class Perplexity(Scorer):
    """Perplexity a token, and bits per byte, which compares encoders whatever their tokenizers; data: `Documents`.

    Args:
        encoder: folder or URI of a causal text encoder with its tokenizer.
    """

    mode = "rolling"
    main = "bits_per_byte"
    less_is_better = frozenset({"perplexity", "bits_per_byte"})

    def __init__(self, encoder: Encoder | str) -> None:
        super().__init__(encoder)
        self.nats, self.tokens, self.bytes = SumMetric(), SumMetric(), SumMetric()

    def _score(self, batch: ChoiceBatch) -> list[Outcome]:
        """Adds a batch; returns the bits and the bytes of each window."""
        nats = -log_likelihoods(self.encoder, batch)
        self.nats.update(nats)
        self.tokens.update(batch.scored.sum())
        self.bytes.update(batch.size)
        return list(zip((nats / math.log(2)).tolist(), map(float, batch.size.tolist()), strict=True))

    def _report(self, prefix: str) -> None:
        nats = self.nats.compute()
        self.log(f"{prefix}/perplexity", (nats / self.tokens.compute()).exp())
        self.log(f"{prefix}/bits_per_byte", nats / math.log(2) / self.bytes.compute(), prog_bar=True)
        for total in (self.nats, self.tokens, self.bytes):
            total.reset()

    def validation_step(self, batch: ChoiceBatch, batch_idx: int) -> None:
        self._score(batch)

    def test_step(self, batch: ChoiceBatch, batch_idx: int) -> None:
        self.keep("test", batch, self._score(batch))

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")
