"""Perplexity over whole documents, and the base of what asks a causal encoder for likelihoods; nothing is trained."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from torch import Tensor
from torchmetrics import SumMetric

from ssl_suite.core.choices import ChoiceBatch
from ssl_suite.core.data import Request
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.module import Evaluation
from ssl_suite.core.optim import Optim
from ssl_suite.core.outcomes import Outcome


@runtime_checkable
class Likely(Protocol):
    """An encoder that says how likely sequences are."""

    def log_likelihoods(self, batch: ChoiceBatch) -> Tensor:
        """(N,) Σ log p of the scored tokens of each sequence."""


class Scorer(Evaluation):
    """Base of what asks a frozen causal encoder for likelihoods.

    Args:
        encoder: folder or URI of a causal text encoder with its tokenizer.
    """

    def __init__(self, encoder: Encoder | str) -> None:
        super().__init__(encoder, Optim())
        loaded, name = self.encoder, type(self).__name__
        expect(loaded, "text", name)
        if not isinstance(loaded, Likely) or not loaded.config.get("causal"):
            raise UserError(f"{name} needs a causal encoder, as CausalLM makes; this one sees what it would predict.")
        loaded.requires_grad_(False).eval()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            raise UserError(f"{type(self).__name__} trains nothing; use `ssl-suite test` with the same options.")
        length, longest = getattr(self.data, "max_length", 0), self.encoder.longest
        if longest is not None and length > longest:
            raise UserError(f"data.max_length is {length}, the encoder reads {longest} tokens; lower it to that.")
        self.data.serve(Request.of(self.encoder))

    def log_likelihoods(self, batch: ChoiceBatch) -> Tensor:
        """(N,) Σ log p of the scored tokens of each sequence."""
        encoder = self.encoder.eval()
        assert isinstance(encoder, Likely)
        return encoder.log_likelihoods(batch)


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
        nats = -self.log_likelihoods(batch)
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
