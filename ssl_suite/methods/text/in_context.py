"""InContext: a causal language model answers by likelihood, from a prompt alone; nothing is trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from ssl_suite.core.choices import ChoiceBatch
from ssl_suite.core.data import Request
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import load_encoder
from ssl_suite.core.module import Evaluation
from ssl_suite.core.optim import Optim
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.methods.text.vocabulary import token_log_likelihoods


class InContext(Evaluation):
    """Zero-, one- and few-shot answers (Brown et al. 2020, arXiv:2005.14165, section 2.4); data: `Prompts`.

    The likeliest answer wins: by Σ log p of its tokens (`accuracy`), and by the same divided by its characters
    (`accuracy_norm`), which does not favour short answers and is comparable between tokenizers.

    Args:
        encoder: folder or URI of a causal text encoder with its tokenizer.
    """

    encoder: TextEncoder
    mode = "in-context"
    main = "accuracy"

    def __init__(self, encoder: Encoder | str) -> None:
        super().__init__(Optim())
        self.encoder, self.encoder_source = causal_encoder(encoder, "InContext"), str(encoder)
        self.accuracy, self.accuracy_norm = MeanMetric(), MeanMetric()

    @property
    def protocol(self) -> str:
        return f"{getattr(self.data, 'shots', 0)}-shot"

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            raise UserError("InContext trains nothing; use `ssl-suite test` with the same options.")
        expect_window(self.encoder, getattr(self.data, "max_length", 0))
        vocab_size = self.encoder.config.get("vocab_size")
        self.data.serve(Request(tokenizer=self.encoder.tokenizer, vocab_size=vocab_size))

    def scores(self, batch: ChoiceBatch) -> tuple[Tensor, Tensor]:
        """(B, C) log-likelihood of each answer, and the same a character; −∞ where an item has fewer answers."""
        total = log_likelihoods(self.encoder, batch)
        table = total.new_full((len(batch), int(batch.choice.max()) + 1), -torch.inf)
        by_character = table.clone()
        table[batch.owner, batch.choice] = total
        by_character[batch.owner, batch.choice] = total / batch.size
        return table, by_character

    def _judge(self, batch: ChoiceBatch, prefix: str) -> None:
        if batch.target is None:
            raise UserError("This split has no targets; use `predict`.")
        total, by_character = self.scores(batch)
        for name, mean, score in (
            ("accuracy", self.accuracy, total),
            ("accuracy_norm", self.accuracy_norm, by_character),
        ):
            mean.update((score.argmax(1) == batch.target).float())
            self.log(f"{prefix}/{name}", mean, batch_size=len(batch), prog_bar=name == self.main)

    def validation_step(self, batch: ChoiceBatch, batch_idx: int) -> None:
        self._judge(batch, "val")

    def test_step(self, batch: ChoiceBatch, batch_idx: int) -> None:
        self._judge(batch, "test")

    def predict_step(self, batch: ChoiceBatch, batch_idx: int) -> list[str]:
        best = self.scores(batch)[0].argmax(1).tolist()
        return [answers[i] for answers, i in zip(batch.answers, best, strict=True)]


@torch.no_grad()
def log_likelihoods(encoder: TextEncoder, batch: ChoiceBatch) -> Tensor:
    """(N,) Σ log p of the scored tokens of each sequence; logits are made at their places only."""
    encoder.eval()
    rows, places = batch.scored.nonzero(as_tuple=True)
    states = encoder.output_at(batch, (rows, places - 1))
    log_p = token_log_likelihoods(states, encoder.tokens.weight, batch.ids[rows, places])
    return torch.zeros(len(batch.ids), device=log_p.device).index_add_(0, rows, log_p)


def causal_encoder(encoder: Encoder | str, asker: str) -> TextEncoder:
    """Loads a causal text encoder, frozen."""
    loaded = load_encoder(encoder)
    expect(loaded, "text", asker)
    if not loaded.config.get("causal"):
        raise UserError(f"{asker} needs a causal encoder, as CausalLM makes; this one sees what it would predict.")
    assert isinstance(loaded, TextEncoder)
    return loaded.requires_grad_(False).eval()


def expect_window(encoder: TextEncoder, length: int) -> None:
    """Raises UserError where sequences are longer than learned positions reach."""
    if encoder.positions is not None and length > encoder.max_length:
        raise UserError(
            f"data.max_length is {length}, the encoder reads {encoder.max_length} tokens; lower it to that."
        )
